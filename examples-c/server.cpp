// A server for clients of the OpenAI interface, over a batch queue: all requests share each pass.
//
//     server MODEL.gguf [--port 8080] [--host 127.0.0.1] [--name NAME]
//            [--chat-template FILE] [--threads N] [--sequences 16] [--context N] [--requests 256]
//            [--clients 64] [--body-bytes 4194304] [--memory-bytes N] [--drain-seconds 30]
//
//     POST /v1/completions, /v1/chat/completions, /v1/embeddings
//     GET  /v1/models, /health, /metrics
//
// Chats are written as the model's template says, or the one in the file that --chat-template names;
// templates get the `tools` of a request and its `chat_template_kwargs`.
//
// It listens on this machine only, unless --host says otherwise: it knows no keys and no TLS. On
// this machine it answers to its own names only. Bodies need a Content-Length, and come as they are:
// neither in chunks nor compressed. Port 0 is any free one; the address is printed. SIGINT or
// SIGTERM: no more requests are taken, those that are there get --drain-seconds to end.
//
// Built with the packages libcpp-httplib-dev and nlohmann-json3-dev of Debian:
//
//     c++ -std=c++17 -O2 server.cpp $(pkg-config --cflags --libs lightgpt cpp-httplib) -o server
#include "server/answer.hpp"
#include "server/chat.hpp"
#include "server/names.hpp"
#include "server/settings.hpp"

#include <httplib.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace server;

// What there is of everything: a model, its queue, and who is served.
class service {
public:
    explicit service(settings given)
        : settings_(std::move(given)), model_(lightgpt::model::open(settings_.model)),
          team_(team_options()), embedder_(model_, team_, session_options()),
          template_(read_template(settings_.chat_template))
    {
        lightgpt::batch_queue_options options;
        options.worker = true;
        options.sequences_max = static_cast<std::uint32_t>(settings_.sequences);
        options.context = settings_.context;
        options.memory_max = settings_.memory_bytes;
        options.requests_max = settings_.requests;
        try {
            queue_.emplace(model_, team_, options);
        } catch (const lightgpt::error &error) {
            if (error.status() != LIGHTGPT_UNSUPPORTED)
                throw; // else an encoder, which makes embeddings and no text
        }
    }

    void add_routes(httplib::Server &server)
    {
        server.set_pre_routing_handler([this](const auto &req, auto &res) {
            try {
                check_head(req, own_names_only_ ? settings_.host : "");
                return httplib::Server::HandlerResponse::Unhandled;
            } catch (const refusal &error) {
                turn_away(res, error);
                return httplib::Server::HandlerResponse::Handled;
            }
        });
        server.Post("/v1/completions", [this](const auto &req, auto &res) { complete(req, res, false); });
        server.Post("/v1/chat/completions",
                    [this](const auto &req, auto &res) { complete(req, res, true); });
        server.Post("/v1/embeddings", [this](const auto &req, auto &res) { embed(req, res); });
        server.Get("/v1/models", [this](const auto &, auto &res) {
            give(res, {{"object", "list"}, {"data", json::array({model_card()})}});
        });
        server.Get("/v1/models/(.+)", [this](const auto &req, auto &res) {
            check_model({{"model", string(req.matches[1])}});
            give(res, model_card());
        });
        server.Get("/health", [this](const auto &, auto &res) {
            res.status = draining_ ? 503 : 200;
            give(res, {{"status", draining_ ? "draining" : "ok"}});
        });
        server.Get("/metrics", [this](const auto &, auto &res) {
            res.set_content(metrics(), "text/plain; version=0.0.4");
        });
        server.set_exception_handler([this](const auto &, auto &res, std::exception_ptr thrown) {
            refuse(res, refusal_of_thrown(thrown));
        });
        server.set_error_handler([](const httplib::Request &, httplib::Response &res) {
            if (!res.has_header("Content-Type"))
                refuse(res, refusal_of_http(res.status));
        });
    }

    // Before requests come.
    void answer_to_own_names_only() { own_names_only_ = true; }

    // Takes no more requests, and waits for those that are there.
    void drain()
    {
        const std::uint64_t seconds = std::min<std::uint64_t>(settings_.drain_seconds, 1 << 30);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
        draining_ = true;
        // Those who take longer are cancelled and told; later calls find no queue, which is safe.
        if (queue_ && !queue_->drain(seconds * 1000000))
            lightgpt_batch_queue_free(queue_->get());
        wait_for_clients(until); // embeddings are not in the queue
        cancelled_ = true;
        // What is left to write is written; stopping the server would break it off.
        wait_for_clients(std::chrono::steady_clock::now() + 100 * LOOK);
    }

private:
    lightgpt::team_options team_options() const
    {
        lightgpt::team_options options;
        options.threads = static_cast<std::uint32_t>(settings_.threads);
        return options;
    }

    lightgpt::session_options session_options() const
    {
        lightgpt::session_options options;
        options.context = settings_.context;
        options.unshared = true;
        return options;
    }

    static void give(httplib::Response &res, const json &body)
    {
        res.set_content(text_of(body), "application/json");
    }

    static void refuse(httplib::Response &res, const refusal &error)
    {
        res.status = error.status;
        if (error.status == 429 || error.status == 503)
            res.set_header("Retry-After", "1");
        give(res, body_of(error));
    }

    // Refuses before the body is read, and ends the connection: the body would be taken for the
    // next request. httplib does that if an answer breaks off, here behind its end.
    static void turn_away(httplib::Response &res, const refusal &error)
    {
        const string body = text_of(body_of(error));
        res.status = error.status;
        res.set_header("Connection", "close");
        res.set_content_provider(body.size(), "application/json",
                                 [body](size_t offset, size_t length, httplib::DataSink &sink) {
                                     sink.write(body.data() + offset, length);
                                     return false;
                                 });
    }

    void wait_for_clients(std::chrono::steady_clock::time_point until) const
    {
        while (clients_ > 0 && std::chrono::steady_clock::now() < until)
            std::this_thread::sleep_for(LOOK);
    }

    refusal refusal_of_thrown(const std::exception_ptr &thrown) const
    {
        try {
            std::rethrow_exception(thrown);
        } catch (const refusal &error) {
            return error;
        } catch (const lightgpt::error &error) {
            return refusal_of(error.status(), error.what(), draining_);
        } catch (const json::exception &error) {
            return {400, string("the body is no JSON that is understood: ") + error.what()};
        } catch (const std::exception &error) {
            return {500, error.what(), "server_error"};
        }
    }

    // A client that is served; gives its place back when it goes.
    std::shared_ptr<void> take_place()
    {
        std::shared_ptr<void> place(nullptr, [this](void *) { clients_--; });
        if (clients_++ >= settings_.clients || draining_)
            throw refusal_of(LIGHTGPT_BUSY, "", draining_);
        return place;
    }

    json read(const httplib::Request &req) const
    {
        // Other types a browser would send from any page.
        if (req.get_header_value("Content-Type").rfind("application/json", 0) != 0)
            throw refusal{415, "expected Content-Type: application/json"};
        const auto is_flat = [](int depth, json::parse_event_t, json &) {
            return depth < 32 ? true : throw refusal{400, "the JSON is too deep"};
        };
        json body = json::parse(req.body, is_flat);
        if (!body.is_object())
            throw refusal{400, "expected a JSON object"};
        check_model(body);
        return body;
    }

    void check_model(const json &body) const
    {
        const json *wanted = member(body, "model");
        if (wanted != nullptr && text(*wanted, "model") != settings_.name)
            throw refusal{404, "there is no such model; this one is " + settings_.name,
                          "invalid_request_error", "model_not_found"};
    }

    void complete(const httplib::Request &req, httplib::Response &res, bool is_chat)
    {
        const auto place = take_place();
        const json body = read(req);
        if (!queue_)
            throw refusal{400, "this model makes embeddings and no text"};
        order wanted = read_order(body, is_chat);
        if (is_chat)
            wanted.prompts = {chat(model_, template_, body)};
        else
            wanted.prompts = inputs(model_, body, "prompt", CHOICES_MAX / wanted.each);
        const string id = (is_chat ? "chatcmpl-" : "cmpl-") + std::to_string(++answers_);
        const auto made
            = std::make_shared<answer>(model_, *queue_, std::move(wanted), settings_.name, id);
        made->submit();
        made->wait_for_first();
        res.set_chunked_content_provider(
            made->content_type(), [made, place](size_t, httplib::DataSink &sink) {
                try {
                    return made->write(sink);
                } catch (const std::exception &) {
                    return false; // the connection breaks off
                }
            });
    }

    void embed(const httplib::Request &req, httplib::Response &res)
    {
        const auto place = take_place();
        const json body = read(req);
        const string form = body.value("encoding_format", "float");
        if (form != "float" && form != "base64")
            throw refusal{400, "encoding_format: expected float or base64"};
        if (member(body, "dimensions") != nullptr)
            throw refusal{400, "dimensions: not supported"};
        json data = json::array();
        std::uint64_t count = 0;
        for (const auto &input : inputs(model_, body, "input", INPUTS_MAX)) {
            count += input.size();
            const std::lock_guard<std::mutex> lock(embedding_);
            if (cancelled_)
                throw refusal_of(LIGHTGPT_CANCELLED, "");
            const std::vector<float> made = embedder_.embed(input);
            json one = {{"object", "embedding"}, {"index", data.size()}};
            one["embedding"] = form == "float" ? json(made) : json(base64(made));
            data.push_back(std::move(one));
        }
        give(res, {{"object", "list"},
                   {"model", settings_.name},
                   {"data", std::move(data)},
                   {"usage", {{"prompt_tokens", count}, {"total_tokens", count}}}});
    }

    json model_card() const
    {
        return {{"id", settings_.name}, {"object", "model"}, {"created", started_},
                {"owned_by", "lightgpt"}};
    }

    // Numbers as text for Prometheus.
    string metrics() const
    {
        const string clients = "# HELP lightgpt_server_clients Clients that are served.\n"
                               "# TYPE lightgpt_server_clients gauge\nlightgpt_server_clients "
            + std::to_string(clients_) + '\n';
        try {
            return queue_ ? queue_->metrics_text() + clients : clients;
        } catch (const lightgpt::error &) {
            return clients; // the queue has gone before the last clients
        }
    }

    const settings settings_;
    const lightgpt::model model_;
    const lightgpt::team team_;
    lightgpt::session embedder_;
    std::mutex embedding_;
    const string template_;
    std::optional<lightgpt::batch_queue> queue_;
    const std::time_t started_ = std::time(nullptr);
    std::atomic<std::uint64_t> clients_ = 0, answers_ = 0;
    bool own_names_only_ = false;
    std::atomic<bool> draining_ = false, cancelled_ = false;
};

// The port; negative if there is none to be had.
int bind(httplib::Server &server, service &all, const settings &given)
{
    // The library would let several servers share a port, and each have some of the clients.
    socket_t bound = INVALID_SOCKET;
    server.set_socket_options([&](socket_t sock) {
        const int yes = 1;
        setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        bound = sock;
    });
    int port = static_cast<int>(given.port);
    if (port == 0)
        port = server.bind_to_any_port(given.host);
    else if (!server.bind_to_port(given.host, port))
        port = -1;
    server.set_socket_options(nullptr); // it holds a variable of this function
    if (port >= 0 && is_loopback(bound))
        all.answer_to_own_names_only();
    return port;
}

int serve(const settings &given)
{
    // Threads inherit the mask; one of them waits for the signals.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    service all(given);
    httplib::Server server;
    all.add_routes(server);
    server.set_payload_max_length(given.body_bytes);
    server.set_tcp_nodelay(true);
    server.set_read_timeout(10).set_write_timeout(10).set_keep_alive_timeout(2);
    // Some more, so that those who cannot be served hear it, and /health answers.
    const size_t threads = given.clients + 8;
    server.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
    const int port = bind(server, all, given);
    if (port < 0) {
        std::cerr << "cannot listen on " << given.host << ':' << given.port << '\n';
        return EXIT_FAILURE;
    }
    std::cout << given.name << " on http://" << given.host << ':' << port << std::endl;
    std::atomic<bool> over = false;
    std::thread ending([&] {
        int signal = 0;
        sigwait(&signals, &signal);
        all.drain();
        // What does not run yet cannot be stopped.
        while (!server.is_running() && !over)
            std::this_thread::sleep_for(LOOK / 10);
        server.stop();
    });
    const bool ended = server.listen_after_bind();
    over = true;
    if (!ended)
        pthread_kill(ending.native_handle(), SIGTERM);
    ending.join();
    return ended ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace

int main(int argc, char **argv)
{
    try {
        return serve(read_arguments(argc, argv));
    } catch (const lightgpt::error &error) {
        std::cerr << error.name() << ": " << error.what() << '\n';
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
    }
    return EXIT_FAILURE;
}
