// The answer to a client while it grows.
#ifndef LIGHTGPT_SERVER_ANSWER_HPP
#define LIGHTGPT_SERVER_ANSWER_HPP

#include "order.hpp"

#include <httplib.h>

#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace server {

// How often is asked whether a client is there.
inline constexpr auto LOOK = std::chrono::milliseconds(100);

// How many looks an answer without a first part keeps its status open.
inline constexpr int LOOKS_FOR_FIRST = 10;

// What happened to a choice of a client: a copy, as events go with the callback.
struct happening {
    size_t choice = 0;
    std::uint32_t kind = 0, token = 0, finish = 0;
    std::int32_t status = LIGHTGPT_OK;
    string text, message;
    double log_probability = 0;
    std::vector<lightgpt_token_score> top;
    std::uint64_t prompt_tokens = 0, generated_tokens = 0;
};

class mailbox {
public:
    // On the queue's thread, which waits for no client.
    void put(happening what)
    {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            waiting_.push_back(std::move(what));
        }
        came_.notify_one();
    }

    // Whether something is there, after some time.
    bool wait(std::chrono::milliseconds time)
    {
        std::unique_lock<std::mutex> lock(mutex_);
        return came_.wait_for(lock, time, [&] { return !waiting_.empty(); });
    }

    // After `wait`.
    happening take()
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        happening first = std::move(waiting_.front());
        waiting_.pop_front();
        return first;
    }

private:
    std::mutex mutex_;
    std::condition_variable came_;
    std::deque<happening> waiting_;
};

// The callback of a request in the queue.
struct listener {
    std::shared_ptr<mailbox> box;
    size_t choice;

    void operator()(const lightgpt::batch_event &event) const
    {
        if (event.kind() == LIGHTGPT_EVENT_PROGRESS)
            return;
        happening what;
        what.choice = choice;
        what.kind = event.kind();
        what.token = event.token();
        what.finish = event.finish();
        what.status = event.status();
        what.text = event.text();
        what.message = event.message();
        what.log_probability = event.log_probability();
        what.top.assign(event.top().begin(), event.top().end());
        if (event.timings() != nullptr) {
            what.prompt_tokens = event.timings()->prompt_tokens;
            what.generated_tokens = event.timings()->generated_tokens;
        }
        box->put(std::move(what));
    }
};

inline const char *finish_name(std::uint32_t finish)
{
    const bool stops = finish == LIGHTGPT_FINISH_END || finish == LIGHTGPT_FINISH_STOP_STRING
        || finish == LIGHTGPT_FINISH_STOPPED;
    return stops ? "stop" : "length";
}

// The answer to a client while it grows: requests in the queue, which are cancelled with it.
class answer {
public:
    answer(const lightgpt::model &model, const lightgpt::batch_queue &queue, order wanted,
           string name, string id)
        : model_(model), queue_(queue), wanted_(std::move(wanted)), name_(std::move(name)),
          id_(std::move(id)), choices_(wanted_.prompts.size() * wanted_.each)
    {
    }
    answer(const answer &) = delete;
    answer &operator=(const answer &) = delete;
    ~answer()
    {
        for (const std::uint64_t request : requests_)
            lightgpt_batch_queue_cancel(queue_.get(), request); // or it is over
    }

    void submit()
    {
        for (size_t choice = 0; choice < choices_.size(); choice++) {
            lightgpt::sampler_options sampling = wanted_.sampling;
            if (sampling.seed)
                *sampling.seed += choice % wanted_.each;
            lightgpt::sampler sampler(sampling);
            lightgpt::batch_request request;
            request.tokens = wanted_.prompts[choice / wanted_.each];
            request.generate = wanted_.generate;
            request.generate.sampler = &sampler;
            request.submitter = wanted_.submitter;
            request.on_event(std::make_unique<listener>(listener{box_, choice}));
            requests_.push_back(queue_.submit(std::move(request)));
        }
    }

    // Waits a little for the first part: an error has a status of its own then. Only `write` can see
    // that a client has left, so longer waits are its own.
    void wait_for_first()
    {
        if (!box_->wait(LOOK * LOOKS_FOR_FIRST))
            return;
        first_ = box_->take();
        if (first_->status < 0)
            throw refusal_of(first_->status, first_->message);
    }

    // The next part of the body, while there are some; false if the client has gone.
    bool write(httplib::DataSink &sink)
    {
        if (!sink.is_writable())
            return false;
        string part;
        const auto until = std::chrono::steady_clock::now() + LOOK;
        while (open() && std::chrono::steady_clock::now() < until
               && (first_ || box_->wait(part.empty() ? LOOK : LOOK * 0))) {
            const happening what = first_ ? *std::exchange(first_, {}) : box_->take();
            if (what.status < 0)
                return fail(sink, what);
            part += hear(what);
        }
        if (!open())
            part += wanted_.stream ? end() : text_of(whole());
        if (!part.empty() && !sink.write(part.data(), part.size()))
            return false;
        if (!open())
            sink.done();
        return true;
    }

    const char *content_type() const
    {
        return wanted_.stream ? "text/event-stream" : "application/json";
    }

private:
    struct choice {
        string text;
        json scores = json::object();
        size_t offset = 0; // of the next token in the text
        const char *finish = nullptr;
        bool began = false;
    };

    bool open() const { return ended_ < choices_.size(); }

    // Takes in what happened; what of it is to be streamed.
    string hear(const happening &what)
    {
        choice &to = choices_[what.choice];
        json scores;
        if (what.kind == LIGHTGPT_EVENT_TOKEN && wanted_.scores)
            scores = scores_of(what, to);
        if (what.kind == LIGHTGPT_EVENT_FINISHED) {
            to.finish = finish_name(what.finish);
            prompt_tokens_ += what.choice % wanted_.each == 0 ? what.prompt_tokens : 0;
            generated_tokens_ += what.generated_tokens;
            ended_++;
        }
        if (!wanted_.stream) {
            to.text += what.text;
            for (const auto &[key, value] : scores.items())
                to.scores[key].push_back(value.front());
            return "";
        }
        if (what.text.empty() && scores.is_null() && to.finish == nullptr)
            return "";
        json made = {{"index", what.choice}, {"logprobs", scores}, {"finish_reason", nullptr}};
        if (to.finish != nullptr)
            made["finish_reason"] = to.finish;
        if (wanted_.is_chat) {
            made["delta"] = {{"content", what.text}};
            if (!std::exchange(to.began, true))
                made["delta"]["role"] = "assistant";
        } else {
            made["text"] = what.text;
        }
        return streamed(with_head(json::array({made})));
    }

    string spelled(std::uint32_t token) const
    {
        return model_.detokenize({token}, LIGHTGPT_TEXT_SHOW_SPECIAL);
    }

    json scores_of(const happening &what, choice &to) const
    {
        const string spelling = spelled(what.token);
        if (!wanted_.is_chat) {
            json top = json::object();
            for (const lightgpt_token_score &score : what.top)
                top[spelled(score.token)] = score.log_probability;
            const size_t offset = to.offset;
            for (const char byte : spelling)
                to.offset += (byte & 0xc0) != 0x80; // characters, not bytes
            return {{"tokens", {spelling}},
                    {"token_logprobs", {what.log_probability}},
                    {"top_logprobs", json::array({top})},
                    {"text_offset", {offset}}};
        }
        const auto one = [](const string &token, double score) {
            const std::vector<std::uint8_t> bytes(token.begin(), token.end());
            return json{{"token", token}, {"logprob", score}, {"bytes", bytes}};
        };
        json made = one(spelling, what.log_probability);
        made["top_logprobs"] = json::array();
        for (const lightgpt_token_score &score : what.top)
            made["top_logprobs"].push_back(one(spelled(score.token), score.log_probability));
        return {{"content", json::array({made})}};
    }

    json usage() const
    {
        return {{"prompt_tokens", prompt_tokens_},
                {"completion_tokens", generated_tokens_},
                {"total_tokens", prompt_tokens_ + generated_tokens_}};
    }

    json with_head(json choices) const
    {
        const char *const kind = !wanted_.is_chat ? "text_completion"
            : wanted_.stream                      ? "chat.completion.chunk"
                                                  : "chat.completion";
        return {{"id", id_}, {"object", kind}, {"created", created_}, {"model", name_},
                {"choices", std::move(choices)}};
    }

    static string streamed(const json &data) { return "data: " + text_of(data) + "\n\n"; }

    string end() const
    {
        string last;
        if (wanted_.usage_wanted) {
            json data = with_head(json::array());
            data["usage"] = usage();
            last = streamed(data);
        }
        return last + "data: [DONE]\n\n";
    }

    json whole() const
    {
        json choices = json::array();
        for (const choice &one : choices_) {
            json made = {{"index", choices.size()}, {"finish_reason", one.finish}};
            made["logprobs"] = wanted_.scores ? one.scores : json();
            if (wanted_.is_chat)
                made["message"] = {{"role", "assistant"}, {"content", one.text}};
            else
                made["text"] = one.text;
            choices.push_back(std::move(made));
        }
        json data = with_head(std::move(choices));
        data["usage"] = usage();
        return data;
    }

    // An error behind the begin: the status is out, so the body tells it.
    bool fail(httplib::DataSink &sink, const happening &what) const
    {
        const json body = body_of(refusal_of(what.status, what.message));
        const string part = wanted_.stream ? streamed(body) : text_of(body);
        if (!sink.write(part.data(), part.size()))
            return false;
        sink.done();
        return true;
    }

    const lightgpt::model &model_;
    const lightgpt::batch_queue &queue_;
    const order wanted_;
    const string name_, id_;
    const std::time_t created_ = std::time(nullptr);
    std::shared_ptr<mailbox> box_ = std::make_shared<mailbox>();
    std::vector<choice> choices_;
    std::vector<std::uint64_t> requests_;
    std::optional<happening> first_;
    size_t ended_ = 0;
    std::uint64_t prompt_tokens_ = 0, generated_tokens_ = 0;
};

} // namespace server

#endif // LIGHTGPT_SERVER_ANSWER_HPP
