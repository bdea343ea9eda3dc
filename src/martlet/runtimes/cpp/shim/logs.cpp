// Logs: frames that say which request they belong to. A frame is the byte 0x1e and one line of JSON, written at once and
// at most as long as a pipe takes in one piece, so that frames of several threads never mix. What is printed instead is a
// plain line, which belongs to the request that runs.
#include <algorithm>
#include <cstdio>

#include <unistd.h>

#include "shim.hpp"

namespace martlet::log {

namespace {

constexpr std::size_t frame_bytes = 4096;
thread_local std::string request;

std::size_t boundary(std::string_view text, std::size_t most) {
    std::size_t end = std::min(most, text.size());
    while (end > 0 && end < text.size() && (text[end] & 0xc0) == 0x80) {
        --end;
    }
    return end;
}

} // namespace

void work_on(std::string id) { request = id.substr(0, 128); }

const std::string& current_request() { return request; }

void write(std::string_view level, std::string_view text) {
    auto now = std::chrono::system_clock::now().time_since_epoch();
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.3f", std::chrono::duration<double>(now).count());
    std::string head = std::string("\x1e{\"t\":") + seconds + ",\"id\":" + (request.empty() ? "null" : quote(request)) +
                       ",\"s\":" + quote(level.substr(0, 64)) + ",\"m\":";
    std::size_t room = frame_bytes - head.size() - 4;
    do {
        std::size_t end = boundary(text, room);
        std::string body = quote(text.substr(0, end));
        while (body.size() - 2 > room) {
            end = boundary(text, end / 2);
            body = quote(text.substr(0, end));
        }
        std::size_t next = end, line = text.substr(0, end).rfind('\n');
        if (end < text.size() && line != std::string_view::npos) {
            body = quote(text.substr(0, line));
            next = line + 1;
        }
        std::string frame = head + body + "}\n";
        // A log that nobody reads must not end a request.
        [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, frame.data(), frame.size());
        text.remove_prefix(next);
    } while (!text.empty());
}

} // namespace martlet::log
