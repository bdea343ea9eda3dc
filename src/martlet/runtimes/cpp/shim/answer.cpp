// Responses: what handlers return, and what it looks like on the wire.
#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <memory>
#include <typeinfo>

#include "shim.hpp"

namespace martlet {

Response::Response(std::string_view content_type, std::string body) : body_(std::move(body)) {
    if (!content_type.empty()) {
        headers_.emplace_back("content-type", content_type);
    }
}

Response Response::stream(std::function<void(const Write&)> pieces) {
    Response response("text/plain; charset=utf-8", "");
    response.pieces_ = std::move(pieces);
    return response;
}

Response& Response::header(std::string name, std::string value) & {
    if (same_name(name, "content-type")) {
        std::erase_if(headers_, [](auto& field) { return same_name(field.first, "content-type"); });
    }
    headers_.emplace_back(std::move(name), std::move(value));
    return *this;
}

namespace {

constexpr std::size_t message_bytes = 4096; // what travels in an answer; the log has all of a message
constexpr std::size_t copied_bytes = 64 * 1024;

const char* reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 418: return "I'm a teapot";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    default: return "Unknown";
    }
}

/// Returns the status line and the headers, but for those that frame the body.
std::string start(const Response& response) {
    if (response.status() < 200 || response.status() > 599) {
        throw std::invalid_argument(std::to_string(response.status()) + " is not an HTTP status (200 to 599)");
    }
    std::string head = "HTTP/1.1 " + std::to_string(response.status()) + " " + reason(response.status()) + "\r\n";
    for (auto& [name, value] : response.headers()) {
        if (!is_token(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
            throw std::invalid_argument(quote(name) + ": " + quote(value) + " cannot be sent as a header");
        }
        bool framing = same_name(name, "connection") || same_name(name, "content-length") ||
                       same_name(name, "keep-alive") || same_name(name, "transfer-encoding");
        if (!framing) {
            head += name + ": " + value + "\r\n";
        }
    }
    return head;
}

std::string finished(std::string head, bool keep_alive) {
    return head += keep_alive ? "\r\n" : "connection: close\r\n\r\n";
}

bool send_whole(const Connection& connection, const Head& head, const Response& response) {
    std::string data = start(response);
    bool bodiless = response.status() == 204 || response.status() == 304;
    if (!bodiless) {
        data += "content-length: " + std::to_string(response.body().size()) + "\r\n";
    }
    data = finished(std::move(data), head.keep_alive);
    std::fflush(stdout); // before the response ends: whoever has that may look for what was printed
    if (bodiless || head.method == "HEAD") {
        connection.send(data);
    } else if (response.body().size() > copied_bytes) {
        connection.send(data);
        connection.send(response.body());
    } else {
        connection.send(data += response.body());
    }
    return head.keep_alive;
}

/// Sends pieces as they come. What is thrown before the first one still becomes a 500; later it cuts the response short.
bool send_stream(const Connection& connection, const Head& head, const Response& response) {
    bool keep_alive = head.keep_alive && head.chunks, started = false;
    auto begin = [&] {
        if (!std::exchange(started, true)) {
            connection.send(finished(start(response) + (head.chunks ? "transfer-encoding: chunked\r\n" : ""), keep_alive));
        }
    };
    struct HeadIsEnough {};
    try {
        response.pieces()([&](std::string_view piece) {
            begin();
            if (head.method == "HEAD") {
                throw HeadIsEnough();
            }
            if (head.chunks && !piece.empty()) {
                char size[24];
                std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
                connection.send(std::string(size).append(piece).append("\r\n"));
            } else {
                connection.send(piece);
            }
        });
        begin();
    } catch (const HeadIsEnough&) {
        return keep_alive;
    } catch (const Gone&) {
        throw;
    } catch (...) {
        if (!started) {
            throw;
        }
        failure();
        return false;
    }
    std::fflush(stdout);
    if (head.chunks && head.method != "HEAD") {
        connection.send("0\r\n\r\n");
    }
    return keep_alive;
}

std::string type_name() {
    const std::type_info* type = abi::__cxa_current_exception_type();
    if (!type) {
        return "unknown";
    }
    int status = 0;
    std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(type->name(), nullptr, nullptr, &status), &std::free);
    return status == 0 ? name.get() : type->name();
}

Response described(const std::string& message) {
    std::string type = type_name();
    log::error(type + ": " + message);
    std::size_t end = std::min(message.size(), message_bytes);
    while (end < message.size() && (message[end] & 0xc0) == 0x80) {
        --end;
    }
    auto document = Json::object({{"type", type}, {"message", message.substr(0, end)}});
    return Response(document).status(500).header("x-martlet-error", is_token(type) ? type : type.substr(0, type.find('<')));
}

} // namespace

bool send(const Connection& connection, const Head& head, const Response& response) {
    try {
        bool streamed = response.pieces() && response.status() != 204 && response.status() != 304;
        return streamed ? send_stream(connection, head, response) : send_whole(connection, head, response);
    } catch (const Gone&) {
        throw;
    } catch (...) {
        return send_whole(connection, head, failure());
    }
}

Response failure() {
    try {
        throw;
    } catch (const BadJson& error) {
        auto problem = Json::object({{"type", "about:blank"},
                                     {"status", 400},
                                     {"code", "bad_json"},
                                     {"title", "The request body is not JSON"},
                                     {"detail", error.what()},
                                     {"request_id", log::current_request()}});
        return Response(problem).status(400).header("content-type", "application/problem+json");
    } catch (const std::exception& error) {
        return described(error.what());
    } catch (const std::string& text) {
        return described(text);
    } catch (const char* text) {
        return described(text);
    } catch (...) {
        return described("something was thrown that is not a std::exception");
    }
}

} // namespace martlet
