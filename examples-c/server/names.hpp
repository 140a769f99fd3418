// What is asked before a body is read: to whom it is addressed, and how long it is.
#ifndef LIGHTGPT_SERVER_NAMES_HPP
#define LIGHTGPT_SERVER_NAMES_HPP

#include "errors.hpp"

#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <string>

namespace server {

// Whether only this machine reaches a socket; whatever the name was that it is bound to.
inline bool is_loopback(int sock)
{
    sockaddr_storage address = {};
    socklen_t size = sizeof address;
    if (getsockname(sock, reinterpret_cast<sockaddr *>(&address), &size) != 0)
        return true; // the careful answer
    if (address.ss_family == AF_INET)
        return ntohl(reinterpret_cast<sockaddr_in &>(address).sin_addr.s_addr) >> 24 == 127;
    return address.ss_family == AF_INET6
        && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<sockaddr_in6 &>(address).sin6_addr);
}

inline string lower(string text)
{
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char letter) { return std::tolower(letter); });
    return text;
}

// The name in a Host header, without the port.
inline string name_of(const string &header)
{
    const size_t bracket = header.rfind('[', 0) == 0 ? header.find(']') : 0;
    return lower(header.substr(0, header.find(':', bracket == string::npos ? 0 : bracket)));
}

// Refuses what can be refused before a body is read. Of a server that only this machine reaches,
// `host` is the name that it listens on; else it is empty.
inline void check_head(const httplib::Request &req, const string &host)
{
    // A page may let its own name stand for this machine; then browsers let it read answers.
    const string name = name_of(req.get_header_value("Host"));
    const bool is_own = host.empty() || name == "localhost" || name == "127.0.0.1"
        || name == "[::1]" || name == lower(host);
    if (!is_own)
        throw refusal{403, "Host: this is none of the names of this server"};
    // The limit of a body is that of the length it names.
    if (req.has_header("Transfer-Encoding"))
        throw refusal{411, "Transfer-Encoding: not supported, a Content-Length is needed"};
    if (req.has_header("Content-Encoding"))
        throw refusal{415, "Content-Encoding: not supported"};
    const bool is_bare = req.method == "GET" || req.method == "HEAD" || req.method == "OPTIONS";
    if (!is_bare && !req.has_header("Content-Length"))
        throw refusal{411, "a Content-Length is needed"};
}

} // namespace server

#endif
