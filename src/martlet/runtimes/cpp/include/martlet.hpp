// What a function written in C++ is given and may return, and how it is served.
//
//     #include <martlet.hpp>
//
//     martlet::Response handle(const martlet::Request& request) {
//         return martlet::Json::object({{"path", request.path}});
//     }
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace martlet {

/// A JSON value.
class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;

    Json(std::nullptr_t = nullptr) {}
    Json(bool value) : value_(value) {}
    template <std::integral Number> Json(Number value) : value_(static_cast<std::int64_t>(value)) {}
    template <std::floating_point Number> Json(Number value) : value_(static_cast<double>(value)) {}
    Json(std::string value) : value_(std::move(value)) {}
    Json(std::string_view value) : value_(std::string(value)) {}
    Json(const char* value) : value_(std::string(value)) {}
    Json(Array items) : value_(std::move(items)) {}
    Json(Object members) : value_(std::move(members)) {}

    static Json array(std::initializer_list<Json> items = {}) { return Json(Array(items)); }
    static Json object(std::initializer_list<std::pair<std::string, Json>> members = {}) {
        return Json(Object(members));
    }

    /// Reads a text; throws BadJson where it is not JSON.
    static Json parse(std::string_view text);

    /// Returns the value as compact text.
    std::string dump() const;

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
    const bool* as_bool() const { return std::get_if<bool>(&value_); }
    const std::string* as_string() const { return std::get_if<std::string>(&value_); }
    const Array* as_array() const { return std::get_if<Array>(&value_); }
    const Object* as_object() const { return std::get_if<Object>(&value_); }
    std::optional<double> as_number() const;

    /// Returns a member of an object; nullptr where there is none.
    const Json* find(std::string_view name) const;

    /// Returns a member of an object, which is made where there is none; null becomes an object.
    Json& operator[](std::string_view name);

    /// Adds an item to an array; null becomes an array.
    void push_back(Json item);

  private:
    void write(std::string& text) const;

    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object> value_{nullptr};
};

/// A text is not JSON. A handler that lets it pass answers 400.
struct BadJson : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

/// Headers in the order sent: names in lower case, looked up in any case.
class Headers {
  public:
    Headers() = default;
    explicit Headers(Pairs fields) : fields_(std::move(fields)) {}

    /// Returns a header's first value.
    std::optional<std::string> get(std::string_view name) const;
    auto begin() const { return fields_.begin(); }
    auto end() const { return fields_.end(); }

  private:
    Pairs fields_;
};

/// One request, its body read.
struct Request {
    std::string method;
    std::string path;         ///< below the function's root, decoded; begins with a slash
    std::string query_string; ///< what follows the question mark, as sent
    Headers headers;
    std::string body;
    std::chrono::steady_clock::time_point arrived = std::chrono::steady_clock::now();

    /// Returns the body read as JSON, an empty one as an empty object; throws BadJson.
    Json json() const { return body.empty() ? Json::object() : Json::parse(body); }

    /// Returns the names and values of the query, in the order sent.
    Pairs query_params() const;

    /// Returns the first value of a name of the query.
    std::optional<std::string> query(std::string_view name) const;

    /// Returns the id that the response, the log and the history have.
    std::string id() const { return headers.get("x-request-id").value_or(""); }

    /// Returns how long the request may still take.
    std::optional<std::chrono::milliseconds> remaining() const;
};

/// Sends one piece of a stream. It throws when the client has left.
using Write = std::function<void(std::string_view)>;

/// What a handler returns: text, JSON, bytes, nothing or a stream, with a status and headers.
class Response {
  public:
    Response(std::string text) : Response("text/plain; charset=utf-8", std::move(text)) {}
    Response(const char* text) : Response(std::string(text)) {}
    Response(const Json& document) : Response("application/json", document.dump()) {}
    Response(const std::vector<std::byte>& bytes)
        : Response("application/octet-stream", std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())) {}

    static Response text(std::string text) { return Response(std::move(text)); }
    static Response bytes(std::string bytes) { return Response("application/octet-stream", std::move(bytes)); }
    /// Answers with a text that is JSON already, as other libraries write it.
    static Response json(std::string document) { return Response("application/json", std::move(document)); }
    static Response json(const Json& document) { return Response(document); }
    static Response empty() { return Response("", "").status(204); }
    /// Answers with what the function writes, each piece sent at once.
    static Response stream(std::function<void(const Write&)> pieces);

    Response& status(int status) & { return status_ = status, *this; }
    Response&& status(int status) && { return status_ = status, std::move(*this); }
    /// Adds a header; a content-type replaces the one there is.
    Response& header(std::string name, std::string value) &;
    Response&& header(std::string name, std::string value) && {
        return std::move(header(std::move(name), std::move(value)));
    }

    int status() const { return status_; }
    const Pairs& headers() const { return headers_; }
    const std::string& body() const { return body_; }
    const std::function<void(const Write&)>& pieces() const { return pieces_; }

  private:
    Response(std::string_view content_type, std::string body);

    int status_ = 200;
    Pairs headers_;
    std::string body_;
    std::function<void(const Write&)> pieces_;
};

/// Write a line to the log, with the id of the request that this thread works on.
namespace log {
void write(std::string_view level, std::string_view text);
inline void info(std::string_view text) { write("info", text); }
inline void warning(std::string_view text) { write("warning", text); }
inline void error(std::string_view text) { write("error", text); }
} // namespace log

using Handler = std::function<Response(const Request&)>;

/// Serves requests with the handler until SIGTERM, finishes those that run, and returns the exit code of the program.
int serve(Handler handler);

} // namespace martlet
