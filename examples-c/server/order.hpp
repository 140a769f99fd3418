// What a client of a completion wants.
#ifndef LIGHTGPT_SERVER_ORDER_HPP
#define LIGHTGPT_SERVER_ORDER_HPP

#include "body.hpp"

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace server {

inline constexpr size_t CHOICES_MAX = 128;

// What a client wants, read and checked.
struct order {
    bool is_chat = false, stream = false, usage_wanted = false, scores = false;
    std::uint32_t top = 0;
    std::vector<std::vector<std::uint32_t>> prompts;
    size_t each = 1; // choices of a prompt
    std::uint64_t submitter = 0;
    lightgpt::generate_options generate;
    lightgpt::sampler_options sampling;
};

inline void refuse_unsupported(const json &body)
{
    const std::pair<const char *, json> only[]
        = {{"best_of", 1}, {"echo", false}, {"suffix", ""}, {"functions", json::array()},
           {"response_format", {{"type", "text"}}}};
    for (const auto &[name, value] : only)
        if (const json *found = member(body, name); found != nullptr && *found != value)
            throw refusal{400, string(name) + ": not supported", "invalid_request_error",
                          "unsupported_parameter"};
}

inline void read_stops(const json &body, order &to)
{
    const json *stops = member(body, "stop");
    if (stops == nullptr)
        return;
    for (const json &stop : stops->is_array() ? *stops : json::array({*stops}))
        to.generate.stops.push_back(text(stop, "stop"));
}

inline void read_scores(const json &body, order &to)
{
    if (to.is_chat) {
        to.scores = flag(body, "logprobs");
        to.top = number<std::uint32_t>(body, "top_logprobs", 0, 0, 20);
    } else if (member(body, "logprobs") != nullptr) {
        to.scores = true;
        to.top = number<std::uint32_t>(body, "logprobs", 0, 0, 20);
    }
    to.generate.log_probabilities = to.scores;
    to.generate.top = to.scores ? to.top : 0;
}

inline order read_order(const json &body, bool is_chat)
{
    order to;
    to.is_chat = is_chat;
    refuse_unsupported(body);
    to.stream = flag(body, "stream");
    if (const json *options = member(body, "stream_options"); options != nullptr)
        to.usage_wanted = options->is_object() && flag(*options, "include_usage");
    to.each = number<size_t>(body, "n", 1, 1, CHOICES_MAX);
    const char *const most = member(body, "max_completion_tokens") ? "max_completion_tokens"
                                                                   : "max_tokens";
    to.generate.tokens_max = number<std::uint64_t>(body, most, is_chat ? 0 : 16, 1, 1 << 30);
    to.sampling.temperature = number<float>(body, "temperature", 1, 0, 2);
    to.sampling.top_p = number<float>(body, "top_p", 1, 0, 1);
    to.sampling.top_k = number<std::uint32_t>(body, "top_k", 0, 0, 1 << 30);
    to.sampling.min_p = number<float>(body, "min_p", 0, 0, 1);
    to.sampling.frequency_penalty = number<float>(body, "frequency_penalty", 0, -2, 2);
    to.sampling.presence_penalty = number<float>(body, "presence_penalty", 0, -2, 2);
    if (member(body, "seed") != nullptr)
        to.sampling.seed = static_cast<std::uint64_t>(
            number<std::int64_t>(body, "seed", 0, INT64_MIN, INT64_MAX));
    if (const json *user = member(body, "user"); user != nullptr)
        to.submitter = std::hash<string>()(text(*user, "user")); // users have equal shares
    read_stops(body, to);
    read_scores(body, to);
    return to;
}

} // namespace server

#endif // LIGHTGPT_SERVER_ORDER_HPP
