// Streams one sentence from a model, in C++17.
//
//     stream MODEL.gguf [PROMPT [SEED]]
#include <lightgpt.hpp>

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

namespace {

void stream(const char *path, std::string_view prompt, const char *seed)
{
    // Owners free what they have, in whatever order; options have their defaults.
    const lightgpt::model model = lightgpt::model::open(path);
    lightgpt::sampler_options choice;
    choice.temperature = 0.7F;
    choice.min_p = 0.05F;
    if (seed != nullptr)
        choice.seed = std::strtoull(seed, nullptr, 10);
    lightgpt::sampler sampler(choice);

    lightgpt::session session(model);
    session.feed(prompt, LIGHTGPT_TEXT_ADD_SPECIAL);

    lightgpt::generate_options options;
    options.sampler = &sampler;
    options.tokens_max = 200;
    options.log_probabilities = true;

    std::cout << prompt;
    double surprise = 0;
    std::uint64_t tokens = 0;
    // A callback is anything that can be called. If it throws, the library takes the turn back, and
    // `generate` throws the same exception.
    session.generate(options, [&](const lightgpt::event &event) {
        std::cout << event.text() << std::flush;
        if (event.kind() == LIGHTGPT_EVENT_TOKEN) {
            surprise -= event.log_probability();
            tokens++;
        }
        const bool over = event.text().find_first_of(".!?") != std::string_view::npos;
        return over ? LIGHTGPT_STOP : LIGHTGPT_CONTINUE;
    });
    std::cout << '\n';
    if (tokens > 0)
        std::cerr << "[" << tokens << " tokens, " << surprise / static_cast<double>(tokens)
                  << " nats each; seed " << sampler.seed() << "]\n";
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " MODEL.gguf [PROMPT [SEED]]\n";
        return EXIT_FAILURE;
    }
    try {
        stream(argv[1], argc > 2 ? argv[2] : "Once upon a time", argc > 3 ? argv[3] : nullptr);
    } catch (const lightgpt::error &error) {
        std::cerr << error.name() << ": " << error.what() << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
