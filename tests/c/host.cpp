// A C++ host: the header, its _INIT macros and a callback that is a lambda.
#include <lightgpt.h>

#include <cstdio>
#include <cstring>
#include <string>

int main(int argc, char **argv)
{
    if (argc != 2)
        return 1;
    lightgpt_model *model = nullptr;
    lightgpt_session *session = nullptr;
    lightgpt_open_options open = LIGHTGPT_OPEN_OPTIONS_INIT;
    open.flags = LIGHTGPT_OPEN_COPY;
    std::string log;
    open.log_data = &log;
    open.log = [](void *data, int32_t, const char *text, size_t bytes) {
        static_cast<std::string *>(data)->append(text, bytes).push_back('\n');
    };
    const char prompt[] = "Once upon a time";
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    generate.tokens_max = 5;
    std::string text;
    auto on_event = [](void *data, const lightgpt_event *event) -> int32_t {
        if (event->text_bytes > 0)
            static_cast<std::string *>(data)->append(event->text, event->text_bytes);
        return LIGHTGPT_CONTINUE;
    };
    if (lightgpt_model_open(argv[1], &open, &model) < 0
        || lightgpt_session_new(model, nullptr, nullptr, &session) < 0
        || lightgpt_session_feed_text(session, prompt, std::strlen(prompt),
                                      LIGHTGPT_TEXT_ADD_SPECIAL, nullptr)
            < 0
        || lightgpt_session_generate(session, &generate, on_event, &text) < 0) {
        std::printf("%s\n", lightgpt_last_error());
        return 1;
    }
    lightgpt_session_free(session);
    lightgpt_model_free(model);
    std::puts(!text.empty() && log.find("opened") == 0 ? "all well" : "something is missing");
    return 0;
}
