// Chats to tokens, by the model's template or one from a file.
#ifndef LIGHTGPT_SERVER_CHAT_HPP
#define LIGHTGPT_SERVER_CHAT_HPP

#include "body.hpp"

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace server {

// The template in the file of that name; nothing without a name.
inline string read_template(const string &path)
{
    std::ifstream file(path);
    if (!path.empty() && !file)
        throw lightgpt::error(LIGHTGPT_IO, path + ": cannot be read");
    return string(std::istreambuf_iterator<char>(file), {});
}

// Nobody but the template begins and ends messages.
inline void check_content(const lightgpt::model &model, const json &value)
{
    if (value.is_string()) {
        const string text = value.get<string>();
        if (model.tokenize(text) != model.tokenize(text, LIGHTGPT_TEXT_PARSE_SPECIAL))
            throw refusal{400, "content: it spells a special token of the model"};
    } else if (value.is_structured()) {
        for (const auto &part : value.items()) {
            check_content(model, part.key());
            check_content(model, part.value());
        }
    }
}

inline const json *list_of(const json &body, const char *name)
{
    const json *found = member(body, name);
    if (found != nullptr && !found->is_array())
        throw refusal{400, string(name) + ": expected a list"};
    return found;
}

// Messages as templates know them: content that comes in parts of text is one text, and the developer
// is the system where a template does not know better.
inline json messages_of(const json &body, const string &source)
{
    const json *messages = list_of(body, "messages");
    if (messages == nullptr || messages->empty())
        throw refusal{400, "messages: expected a list of messages"};
    json all = *messages;
    for (json &message : all) {
        if (!message.is_object() || member(message, "role") == nullptr)
            throw refusal{400, "messages: expected a role in each"};
        if (text(message["role"], "role") == "developer" && source.find("developer") == string::npos)
            message["role"] = "system";
        const json *content = member(message, "content");
        if (content == nullptr || content->is_string())
            continue;
        string whole;
        for (const json &part : *content) {
            if (!part.is_object() || part.value("type", "") != "text" || !member(part, "text"))
                throw refusal{400, "content: expected a text, or parts of type text"};
            whole += text(part["text"], "content");
        }
        message["content"] = whole;
    }
    return all;
}

inline std::vector<std::uint32_t> chat(const lightgpt::model &model, const string &source,
                                       const json &body)
{
    const json messages
        = messages_of(body, source.empty() ? model.chat_template().value_or("") : source);
    const json *tools = list_of(body, "tools");
    const json *variables = member(body, "chat_template_kwargs");
    if (variables != nullptr && !variables->is_object())
        throw refusal{400, "chat_template_kwargs: expected an object"};
    for (const json *part : {&messages, tools, variables})
        if (part != nullptr)
            check_content(model, *part);

    const string messages_json = messages.dump(), tools_json = tools ? tools->dump() : "",
                 variables_json = variables ? variables->dump() : "";
    lightgpt::chat given;
    given.messages_json = messages_json;
    if (tools != nullptr && !tools->empty())
        given.tools_json = tools_json;
    if (variables != nullptr)
        given.variables_json = variables_json;
    if (!source.empty())
        given.template_text = source;
    return model.tokenize(given);
}

} // namespace server

#endif // LIGHTGPT_SERVER_CHAT_HPP
