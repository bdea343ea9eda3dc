// HTTP/1.1 (RFC 9112): requests are read from a connection.
#include <algorithm>
#include <cerrno>
#include <charconv>

#include <sys/socket.h>
#include <unistd.h>

#include "shim.hpp"

namespace martlet {

namespace {

constexpr std::size_t max_head = 64 * 1024; // the gateway's own limit is lower
constexpr std::size_t receive_bytes = 64 * 1024;

char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter | 0x20) : letter; }

std::string lowered(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(), lower);
    return result;
}

std::string_view trimmed(std::string_view text) {
    std::size_t first = text.find_first_not_of(" \t");
    return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

BadRequest malformed() { return {400, "this is not an HTTP/1.1 request"}; }

void read_request_line(std::string_view line, Head& head) {
    std::size_t first = line.find(' '), last = line.rfind(' ');
    if (first == std::string_view::npos || first == last) {
        throw malformed();
    }
    head.method = line.substr(0, first);
    head.target = line.substr(first + 1, last - first - 1);
    std::string_view version = line.substr(last + 1);
    head.chunks = version == "HTTP/1.1";
    bool printable = std::none_of(head.target.begin(), head.target.end(), [](char letter) {
        return static_cast<unsigned char>(letter) <= ' ' || letter == 0x7f;
    });
    if (!(head.chunks || version == "HTTP/1.0") || !is_token(head.method) || !printable ||
        !(head.target.starts_with('/') || head.target == "*")) {
        throw malformed();
    }
}

std::int64_t body_length(const Pairs& fields) {
    std::int64_t length = 0;
    int said = 0;
    for (auto& [name, value] : fields) {
        if (name == "content-length") {
            auto [rest, error] = std::from_chars(value.data(), value.data() + value.size(), length);
            if (error != std::errc() || rest != value.data() + value.size() || value.size() > 15 || length < 0) {
                throw BadRequest(400, "content-length must be a number of bytes");
            }
            ++said;
        } else if (name == "transfer-encoding") {
            said += lowered(value) == "chunked" ? 1 : 2;
            length = Head::chunked;
        }
    }
    if (said > 1) {
        throw BadRequest(400, "a body must either have one content-length or be chunked");
    }
    return length;
}

std::string decoded(std::string_view text, bool plus) {
    std::string result;
    for (std::size_t at = 0; at < text.size(); ++at) {
        unsigned value = 0;
        const char* digits = text.data() + at + 1;
        if (text[at] == '%' && at + 2 < text.size() &&
            std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2) {
            result += static_cast<char>(value);
            at += 2;
        } else {
            result += plus && text[at] == '+' ? ' ' : text[at];
        }
    }
    return result;
}

} // namespace

bool is_token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char letter) {
        return (lower(letter) >= 'a' && lower(letter) <= 'z') || (letter >= '0' && letter <= '9') ||
               std::string_view("!#$%&'*+-.^_`|~").find(letter) != std::string_view::npos;
    });
}

bool same_name(std::string_view one, std::string_view other) {
    return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                      [](char left, char right) { return lower(left) == lower(right); });
}

Head parse_head(std::string_view data) {
    Head head;
    Pairs fields;
    std::size_t end = data.find("\r\n");
    read_request_line(data.substr(0, end), head);
    while (end != std::string_view::npos) {
        data.remove_prefix(end + 2);
        end = data.find("\r\n");
        std::string_view line = data.substr(0, end);
        std::size_t colon = line.find(':');
        bool broken = line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos;
        if (colon == std::string_view::npos || broken || !is_token(line.substr(0, colon))) {
            throw malformed();
        }
        fields.emplace_back(lowered(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
    }
    head.length = body_length(fields);
    head.headers = Headers(std::move(fields));
    std::string connection = lowered(head.headers.get("connection").value_or(""));
    head.keep_alive = head.chunks && connection.find("close") == std::string::npos;
    return head;
}

Request make_request(Head head, std::string body) {
    std::size_t question = head.target.find('?');
    Request request;
    request.method = std::move(head.method);
    request.path = decoded(std::string_view(head.target).substr(0, question), false);
    request.query_string = question == std::string::npos ? "" : head.target.substr(question + 1);
    request.headers = std::move(head.headers);
    request.body = std::move(body);
    return request;
}

std::optional<std::string> Headers::get(std::string_view name) const {
    for (auto& [key, value] : fields_) {
        if (same_name(key, name)) {
            return value;
        }
    }
    return std::nullopt;
}

Pairs Request::query_params() const {
    Pairs pairs;
    std::string_view rest = query_string;
    while (!rest.empty()) {
        std::string_view pair = rest.substr(0, rest.find('&'));
        rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
        std::size_t equals = pair.find('=');
        std::string_view value = equals == std::string_view::npos ? "" : pair.substr(equals + 1);
        if (!pair.empty()) {
            pairs.emplace_back(decoded(pair.substr(0, equals), true), decoded(value, true));
        }
    }
    return pairs;
}

std::optional<std::string> Request::query(std::string_view name) const {
    for (auto& [key, value] : query_params()) {
        if (key == name) {
            return value;
        }
    }
    return std::nullopt;
}

std::optional<std::chrono::milliseconds> Request::remaining() const {
    std::string text = headers.get("x-faas-deadline").value_or("");
    std::int64_t deadline = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), deadline).ec != std::errc()) {
        return std::nullopt;
    }
    auto passed = std::chrono::steady_clock::now() - arrived;
    return std::chrono::milliseconds(deadline) - std::chrono::duration_cast<std::chrono::milliseconds>(passed);
}

Connection::~Connection() { close(descriptor_); }

Head Connection::head() {
    idle_ = true;
    std::size_t searched = 0, end = std::string::npos;
    while ((end = buffer_.find("\r\n\r\n", searched)) == std::string::npos) {
        if (buffer_.size() > max_head) {
            throw BadRequest(431, "the request's headers are too large");
        }
        searched = buffer_.size() < 3 ? 0 : buffer_.size() - 3;
        receive();
    }
    idle_ = false;
    Head head = parse_head(std::string_view(buffer_).substr(0, end));
    buffer_.erase(0, end + 4);
    return head;
}

std::string Connection::body(std::int64_t length) {
    std::string body;
    if (length != Head::chunked) {
        check(length);
        take(static_cast<std::size_t>(length), body);
        return body;
    }
    while (true) {
        std::string line = this->line();
        std::string_view digits = trimmed(std::string_view(line).substr(0, line.find(';')));
        std::uint32_t size = 0;
        auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size, 16);
        if (error != std::errc() || rest != digits.data() + digits.size()) {
            throw BadRequest(400, "a chunk does not begin with its size");
        }
        if (size == 0) {
            while (!this->line().empty()) {
            } // trailers mean nothing to a function
            return body;
        }
        check(static_cast<std::int64_t>(body.size()) + size);
        take(size, body);
        if (!this->line().empty()) {
            throw BadRequest(400, "a chunk is longer than its size says");
        }
    }
}

void Connection::check(std::int64_t size) const {
    if (size > max_body_) {
        throw BadRequest(413, "the request body is over " + std::to_string(max_body_) + " bytes");
    }
}

void Connection::take(std::size_t size, std::string& into) {
    std::size_t ready = std::min(size, buffer_.size()), filled = into.size();
    into.append(buffer_, 0, ready);
    buffer_.erase(0, ready);
    into.resize(filled + size);
    for (filled += ready; filled < into.size();) {
        ssize_t received = recv(descriptor_, into.data() + filled, into.size() - filled, 0);
        if (received > 0) {
            filled += static_cast<std::size_t>(received);
        } else if (received == 0 || errno != EINTR) {
            throw Gone();
        }
    }
}

std::string Connection::line() {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (buffer_.size() > max_head) {
            throw BadRequest(400, "a line between chunks is too long");
        }
        receive();
    }
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 2);
    return line;
}

void Connection::receive() {
    std::size_t filled = buffer_.size();
    buffer_.resize(filled + receive_bytes);
    ssize_t received = 0;
    do {
        received = recv(descriptor_, buffer_.data() + filled, receive_bytes, 0);
    } while (received < 0 && errno == EINTR);
    buffer_.resize(filled + static_cast<std::size_t>(std::max<ssize_t>(received, 0)));
    if (received <= 0) {
        throw Gone();
    }
}

void Connection::send(std::string_view data) const {
    while (!data.empty()) {
        ssize_t sent = ::send(descriptor_, data.data(), data.size(), MSG_NOSIGNAL);
        if (sent >= 0) {
            data.remove_prefix(static_cast<std::size_t>(sent));
        } else if (errno != EINTR) {
            throw Gone();
        }
    }
}

void Connection::end_if_idle() const {
    if (idle_) {
        shutdown(descriptor_, SHUT_RD);
    }
}

} // namespace martlet
