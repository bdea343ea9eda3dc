// Serves a function for Open Runtimes, and keeps what its platform and it agree on in headers and paths.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <json/reader.h>

#include "../shim/shim.hpp"
#include "RuntimeContext.h"

namespace openruntimes {

using Function = runtime::RuntimeOutput (*)(runtime::RuntimeContext&);

inline constexpr std::string_view hidden = "x-open-runtimes-";

inline std::string given(const martlet::Request& request, std::string_view name) {
    return request.headers.get(std::string(hidden) + std::string(name)).value_or("");
}

/// The headers of a request do not allow it to be run.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Returns how many seconds a request may take (0: there is no bound); throws Refused.
inline int terms(const martlet::Request& request) {
    int seconds = 0;
    if (std::string text = given(request, "timeout"); !text.empty()) {
        auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
        if (error != std::errc() || rest != text.data() + text.size() || seconds <= 0) {
            throw Refused("Header \"x-open-runtimes-timeout\" must be an integer greater than 0.");
        }
    }
    const char* secret = std::getenv("OPEN_RUNTIMES_SECRET");
    if (secret && *secret && given(request, "secret") != secret) {
        throw Refused("Unauthorized. Provide correct \"x-open-runtimes-secret\" header.");
    }
    return seconds;
}

/// Fills in where a request was sent to.
inline void locate(runtime::RuntimeRequest& req, const martlet::Request& request) {
    auto header = [&](const char* name) { return request.headers.get(name).value_or(""); };
    req.scheme = header("x-forwarded-proto").empty() ? "http" : header("x-forwarded-proto");
    std::string authority = header("x-forwarded-host").empty() ? header("host") : header("x-forwarded-host");
    std::size_t colon = authority.rfind(':');
    req.host = authority;
    req.port = req.scheme == "https" ? 443 : 80;
    if (colon != std::string::npos && authority.find_first_not_of("0123456789", colon + 1) == std::string::npos) {
        req.host = authority.substr(0, colon);
        std::from_chars(authority.data() + colon + 1, authority.data() + authority.size(), req.port);
    }
    req.url = req.scheme + "://" + authority + req.path + (req.queryString.empty() ? "" : "?") + req.queryString;
}

/// Fills in the last value of each name of the query, as it was sent: not decoded.
inline void fill_query(runtime::RuntimeRequest& req) {
    std::istringstream pairs(req.queryString);
    for (std::string pair; std::getline(pairs, pair, '&');) {
        std::size_t equals = pair.find('=');
        if (equals != 0 && !pair.empty()) {
            req.query[pair.substr(0, equals)] = equals == std::string::npos ? "" : pair.substr(equals + 1);
        }
    }
}

inline runtime::RuntimeContext context_of(const martlet::Request& request) {
    runtime::RuntimeContext context;
    runtime::RuntimeRequest& req = context.req;
    req.method = request.method;
    req.path = request.path;
    req.queryString = request.query_string;
    fill_query(req);
    for (auto& [name, value] : request.headers) {
        if (!name.starts_with(hidden)) {
            bool again = req.headers.isMember(name);
            req.headers[name] = again ? req.headers[name].asString() + ", " + value : value;
        }
    }
    locate(req, request);
    auto first = reinterpret_cast<const std::byte*>(request.body.data());
    req.bodyBinary.assign(first, first + request.body.size());
    req.bodyRaw = req.bodyText = request.body;
    req.body = request.body;
    bool is_json = request.headers.get("content-type").value_or("").starts_with("application/json");
    Json::CharReaderBuilder builder;
    std::unique_ptr<Json::CharReader> reader(builder.newCharReader());
    std::string ignored;
    reader->parse(request.body.data(), request.body.data() + request.body.size(), &req.bodyJson, &ignored);
    if (is_json) {
        req.body = request.body.empty() ? Json::Value(Json::objectValue) : req.bodyJson;
    }
    std::string logging = given(request, "logging");
    context.silent = logging == "disabled" || logging == "disable";
    return context;
}

inline std::string with_charset(std::string type) {
    std::string lower = type;
    for (char& letter : lower) {
        letter = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter | 0x20) : letter;
    }
    bool text = lower.starts_with("text/") || lower.starts_with("application/json");
    return text && lower.find("charset=") == std::string::npos ? type + "; charset=utf-8" : type;
}

inline martlet::Response sent(const runtime::RuntimeOutput& output) {
    if (output.statusCode == 0) {
        throw std::logic_error(
            "Return statement missing. return context.res.empty() if no response is expected.");
    }
    std::string body(reinterpret_cast<const char*>(output.body.data()), output.body.size());
    auto response = martlet::Response::empty().status(output.statusCode);
    if (!body.empty()) {
        response = martlet::Response::bytes(std::move(body)).status(output.statusCode);
    }
    for (auto& name : output.headers.getMemberNames()) {
        std::string value = output.headers[name].asString();
        if (martlet::same_name(name, "content-type")) {
            response.header(name, with_charset(value));
        } else if (!martlet::same_name(name.substr(0, hidden.size()), hidden)) {
            response.header(name, value);
        }
    }
    return response;
}

/// Runs the function; one that takes too long is left behind in a process that ends.
inline martlet::Response run(Function function, runtime::RuntimeContext context, int seconds) {
    if (seconds == 0) {
        return sent(function(context));
    }
    std::promise<runtime::RuntimeOutput> promise;
    auto outcome = promise.get_future();
    std::thread([function, context, promise = std::move(promise), id = martlet::log::current_request()]() mutable {
        martlet::log::work_on(id);
        try {
            promise.set_value(function(context));
        } catch (...) {
            promise.set_exception(std::current_exception());
        }
    }).detach();
    if (outcome.wait_for(std::chrono::seconds(seconds)) == std::future_status::ready) {
        return sent(outcome.get());
    }
    martlet::log::error("Execution timed out.");
    martlet::stop(); // nothing else ends a thread
    return martlet::Response("Execution timed out.").status(500);
}

inline martlet::Response answered(Function function, const martlet::Request& request) {
    if (request.method == "GET" && request.path == "/__opr/health") {
        return "OK";
    }
    if (request.method == "GET" && request.path == "/__opr/timings") {
        return "startup=" + std::to_string(martlet::startup);
    }
    try {
        return run(function, context_of(request), terms(request));
    } catch (const Refused& refused) {
        return martlet::Response(refused.what()).status(500);
    }
}

/// Serves requests with the function until SIGTERM; returns the exit code of the program.
inline int serve(Function function) {
    return martlet::serve([function](const martlet::Request& request) {
        martlet::Response response = answered(function, request);
        for (auto& [name, value] : request.headers) {
            if (name.starts_with(hidden)) { // the client speaks of Open Runtimes
                std::string id = given(request, "log-id");
                auto now = std::chrono::system_clock::now().time_since_epoch().count();
                return response.header("x-open-runtimes-log-id", id.empty() ? std::to_string(now) : id);
            }
        }
        return response;
    });
}

} // namespace openruntimes
