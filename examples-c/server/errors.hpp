// Errors as clients of the OpenAI interface know them.
#ifndef LIGHTGPT_SERVER_ERRORS_HPP
#define LIGHTGPT_SERVER_ERRORS_HPP

#include <lightgpt.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

namespace server {

// What clients send keeps its order: templates may write it into prompts.
using json = nlohmann::ordered_json;
using std::size_t;
using std::string;

struct refusal {
    int status;
    string message;
    const char *type = "invalid_request_error";
    json code = nullptr;
};

inline json body_of(const refusal &error)
{
    return {{"error",
             {{"message", error.message},
              {"type", error.type},
              {"param", nullptr},
              {"code", error.code}}}};
}

inline refusal refusal_of(std::int32_t status, const string &message, bool draining = false)
{
    switch (status) {
    case LIGHTGPT_BUSY:
        if (draining)
            return {503, "the server is going down", "server_error", "unavailable"};
        return {429, "too many requests are there", "rate_limit_error", "rate_limit_exceeded"};
    case LIGHTGPT_CANCELLED:
        return {503, "the request was cancelled", "server_error", "unavailable"};
    case LIGHTGPT_CONTEXT_FULL:
        return {400, message, "invalid_request_error", "context_length_exceeded"};
    case LIGHTGPT_INVALID_ARGUMENT:
    case LIGHTGPT_NOT_FOUND: // the model has no chat template
    case LIGHTGPT_UNSUPPORTED:
    case LIGHTGPT_MEMORY_CAP:
        return {400, message};
    default:
        return {500, message, "server_error"};
    }
}

// What a status is called that comes without a body of ours.
inline refusal refusal_of_http(int status)
{
    switch (status) {
    case 404:
        return {404, "there is no such path", "invalid_request_error", "not_found"};
    case 413:
        return {413, "the body is too large", "invalid_request_error", "too_large"};
    default:
        return {status, "the request cannot be answered", status < 500 ? "invalid_request_error"
                                                                       : "server_error"};
    }
}

} // namespace server

#endif // LIGHTGPT_SERVER_ERRORS_HPP
