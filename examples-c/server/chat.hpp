// Chats as text.
#ifndef LIGHTGPT_SERVER_CHAT_HPP
#define LIGHTGPT_SERVER_CHAT_HPP

#include "body.hpp"

#include <string>
#include <vector>

namespace server {

// How a message is written: open, role, middle, content, close. The library renders no templates of
// models; these are the forms that most of them have.
struct chat_format {
    const char *name;
    const char *mark; // stands in the template of a model that has this form
    const char *open, *middle, *close;
    const char *assistant;
    const char *stop; // where the model has no token for the end of a message
};

inline constexpr chat_format FORMATS[] = {
    {"chatml", "<|im_start|>", "<|im_start|>", "\n", "<|im_end|>\n", "assistant", nullptr},
    {"llama3", "<|start_header_id|>", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>",
     "assistant", nullptr},
    {"gemma", "<start_of_turn>", "<start_of_turn>", "\n", "<end_of_turn>\n", "model", nullptr},
    {"phi3", "<|end|>", "<|", "|>\n", "<|end|>\n", "assistant", nullptr},
    {"zephyr", "<|user|>", "<|", "|>\n", "</s>\n", "assistant", nullptr},
    {"plain", nullptr, "", ": ", "\n", "assistant", "\nuser:"},
};

// The format that was named, or that of the model's template; null if that is none of ours.
inline const chat_format *format_of(const lightgpt::model &model, const string &name)
{
    const auto found = model.metadata_text("tokenizer.chat_template");
    for (const chat_format &format : FORMATS) {
        const bool is_wanted = format.mark == nullptr ? !found.has_value()
                                                      : found.value_or("").find(format.mark)
                != string::npos;
        if (name.empty() ? is_wanted : name == format.name)
            return &format;
    }
    return nullptr;
}

inline string content_of(const json &message)
{
    const json *content = member(message, "content");
    if (content == nullptr || !content->is_array())
        return content != nullptr ? text(*content, "content") : string();
    string all;
    for (const json &part : *content) {
        if (!part.is_object() || part.value("type", "") != "text" || member(part, "text") == nullptr)
            throw refusal{400, "content: expected parts of type text"};
        all += text(part["text"], "content");
    }
    return all;
}

inline std::vector<std::uint32_t> chat(const lightgpt::model &model, const chat_format &format,
                                const json &body)
{
    const json *messages = member(body, "messages");
    if (messages == nullptr || !messages->is_array() || messages->empty())
        throw refusal{400, "messages: expected a list of messages"};
    string all;
    for (const json &message : *messages) {
        if (!message.is_object() || member(message, "role") == nullptr)
            throw refusal{400, "messages: expected a role in each"};
        string role = text(message["role"], "role");
        if (role == "developer")
            role = "system";
        if (role != "system" && role != "user" && role != "assistant")
            throw refusal{400, "role: expected system, user or assistant, found " + role};
        const string content = content_of(message);
        // Nobody but us begins and ends messages.
        if (model.tokenize(content) != model.tokenize(content, LIGHTGPT_TEXT_PARSE_SPECIAL))
            throw refusal{400, "content: it spells a special token of the model"};
        all += string(format.open) + (role == "assistant" ? format.assistant : role.c_str())
            + format.middle + content + format.close;
    }
    all += string(format.open) + format.assistant + format.middle;
    while (!all.empty() && all.back() == ' ')
        all.pop_back(); // the model writes it
    return model.tokenize(all, LIGHTGPT_TEXT_ADD_SPECIAL | LIGHTGPT_TEXT_PARSE_SPECIAL);
}

} // namespace server

#endif // LIGHTGPT_SERVER_CHAT_HPP
