// What the server is told on its command line.
#ifndef LIGHTGPT_SERVER_SETTINGS_HPP
#define LIGHTGPT_SERVER_SETTINGS_HPP

#include "errors.hpp"

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>

namespace server {

struct settings {
    string model, host = "127.0.0.1", name, chat_template;
    std::uint64_t port = 8080, threads = 0, sequences = 16, context = 0, requests = 256, clients = 64;
    std::uint64_t body_bytes = 4 << 20, memory_bytes = 0, drain_seconds = 30;
};

inline settings read_arguments(int argc, char **argv)
{
    settings to;
    const std::pair<const char *, string *> texts[]
        = {{"--host", &to.host}, {"--name", &to.name}, {"--chat-template", &to.chat_template}};
    const std::pair<const char *, std::uint64_t *> numbers[]
        = {{"--port", &to.port},           {"--threads", &to.threads},
           {"--sequences", &to.sequences}, {"--context", &to.context},
           {"--requests", &to.requests},   {"--clients", &to.clients},
           {"--body-bytes", &to.body_bytes}, {"--memory-bytes", &to.memory_bytes},
           {"--drain-seconds", &to.drain_seconds}};
    const auto wrong = [&](const string &what) {
        std::cerr << what << "\nusage: " << argv[0] << " MODEL.gguf [--port N] and others, see the source\n";
        std::exit(2);
    };
    for (int i = 1; i < argc; i++) {
        const string name = argv[i];
        if (name.rfind("--", 0) != 0) {
            to.model = name;
            continue;
        }
        if (++i == argc)
            wrong(name + " needs a value");
        bool known = false;
        for (const auto &[option, value] : texts)
            if (name == option) {
                *value = argv[i];
                known = true;
            }
        for (const auto &[option, value] : numbers)
            if (name == option) {
                char *end = nullptr;
                *value = std::strtoull(argv[i], &end, 10);
                known = end != argv[i] && *end == '\0';
            }
        if (!known)
            wrong(name + ' ' + argv[i] + " is not understood");
    }
    if (to.model.empty() || to.port > 65535)
        wrong("expected a model, and a port below 65536");
    if (to.name.empty())
        to.name = to.model.substr(to.model.find_last_of('/') + 1);
    return to;
}

} // namespace server

#endif
