// Reading what clients send, and writing what they get.
#ifndef LIGHTGPT_SERVER_BODY_HPP
#define LIGHTGPT_SERVER_BODY_HPP

#include "errors.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace server {

inline constexpr size_t INPUTS_MAX = 2048;

// Replaces what is not UTF-8: a token may be a part of a character.
inline string text_of(const json &value)
{
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

inline const json *member(const json &body, const char *name)
{
    const auto found = body.find(name);
    return found == body.end() || found->is_null() ? nullptr : &*found;
}

template <class T> T number(const json &body, const char *name, T otherwise, T least, T most)
{
    const json *found = member(body, name);
    if (found == nullptr)
        return otherwise;
    const bool fits = std::is_integral_v<T> ? found->is_number_integer() : found->is_number();
    if (!fits || found->get<double>() < static_cast<double>(least)
        || found->get<double>() > static_cast<double>(most))
        throw refusal{400, string(name) + ": expected a number from " + std::to_string(least)
                               + " to " + std::to_string(most)};
    return found->get<T>();
}

inline bool flag(const json &body, const char *name)
{
    const json *found = member(body, name);
    if (found != nullptr && !found->is_boolean())
        throw refusal{400, string(name) + ": expected true or false"};
    return found != nullptr && found->get<bool>();
}

inline string text(const json &value, const char *name)
{
    if (!value.is_string())
        throw refusal{400, string(name) + ": expected a text"};
    return value.get<string>();
}

inline std::vector<std::uint32_t> tokens(const json &value, const char *name)
{
    std::vector<std::uint32_t> result;
    for (const json &token : value) {
        if (!token.is_number_unsigned() || token.get<std::uint64_t>() > UINT32_MAX)
            throw refusal{400, string(name) + ": expected tokens"};
        result.push_back(token.get<std::uint32_t>());
    }
    return result;
}

// Texts or tokens, one of them or several, but not more than `most`.
inline std::vector<std::vector<std::uint32_t>> inputs(const lightgpt::model &model, const json &body,
                                               const char *name, size_t most)
{
    const json *given = member(body, name);
    if (given == nullptr)
        throw refusal{400, string(name) + ": it is missing"};
    const bool several
        = given->is_array() && !given->empty() && !given->front().is_number();
    // Before anything is made of them.
    if (several && given->size() > most)
        throw refusal{400, string(name) + ": too many"};
    const json all = several ? *given : json::array({*given});
    std::vector<std::vector<std::uint32_t>> result;
    for (const json &one : all) {
        if (one == "" || one == json::array())
            throw refusal{400, string(name) + ": it is empty"};
        result.push_back(one.is_array()
                             ? tokens(one, name)
                             : model.tokenize(text(one, name), LIGHTGPT_TEXT_ADD_SPECIAL));
    }
    return result;
}

inline string base64(const std::vector<float> &numbers)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    string bytes(numbers.size() * sizeof(float), '\0'), result;
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
    for (size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t three = 0;
        for (size_t j = 0; j < 3; j++)
            three = three << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        for (size_t j = 0; j < 4; j++)
            result += i + j <= bytes.size() ? digits[three >> (18 - 6 * j) & 63] : '=';
    }
    return result;
}

} // namespace server

#endif // LIGHTGPT_SERVER_BODY_HPP
