// What the parts of the shim know of each other.
#pragma once

#include <atomic>
#include <exception>

#include <martlet.hpp>

namespace martlet {

/// Returns text as a JSON string.
std::string quote(std::string_view text);

/// The peer sent what is not acceptable HTTP. The connection cannot go on.
struct BadRequest : std::runtime_error {
    BadRequest(int status, const std::string& message) : std::runtime_error(message), status(status) {}
    int status;
};

/// The peer has left, or the process ends.
struct Gone : std::exception {};

/// Request line and headers.
struct Head {
    static constexpr std::int64_t chunked = -1;

    std::string method;
    std::string target;
    Headers headers;
    std::int64_t length = 0; ///< bytes of the body, or chunked
    bool keep_alive = true;
    bool chunks = true; ///< whether the peer speaks HTTP/1.1, and so knows chunks
};

/// Parses what stands before the empty line; throws BadRequest.
Head parse_head(std::string_view data);

/// Returns the request that a handler sees.
Request make_request(Head head, std::string body);

bool is_token(std::string_view text);
bool same_name(std::string_view one, std::string_view other);

/// One connection, read and written by one thread. Its methods throw BadRequest and Gone.
class Connection {
  public:
    Connection(int descriptor, std::int64_t max_body) : descriptor_(descriptor), max_body_(max_body) {}
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    /// Waits for a request.
    Head head();

    /// Reads the whole body of a request.
    std::string body(std::int64_t length);

    void send(std::string_view data) const;

    /// Called from another thread: ends the connection unless it is within a request.
    void end_if_idle() const;

  private:
    void receive();
    std::string line();
    void take(std::size_t size, std::string& into);
    void check(std::int64_t size) const;

    int descriptor_;
    std::int64_t max_body_;
    std::string buffer_;
    std::atomic<bool> idle_ = true;
};

/// Sends a response to a request with that head; returns whether the connection may carry another one.
bool send(const Connection& connection, const Head& head, const Response& response);

/// Describes the exception that is being handled as a response, and logs it.
Response failure();

namespace log {
/// Says that from here on this thread works on that request (empty: on none).
void work_on(std::string id);
const std::string& current_request();
} // namespace log

/// Begins to end this process, as SIGTERM does.
void stop();

/// Seconds that this program took to be ready.
extern double startup;

} // namespace martlet
