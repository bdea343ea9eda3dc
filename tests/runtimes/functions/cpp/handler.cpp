#include <martlet.hpp>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <numeric>
#include <stdexcept>
#include <thread>

using martlet::Json, martlet::Request, martlet::Response;

static std::atomic<int> count = 0;

static Json inspect(const Request& request) {
    Json query = Json::object(), headers = Json::object();
    for (auto& [name, value] : request.query_params()) {
        if (!query.find(name)) {
            query[name] = value;
        }
    }
    for (auto& [name, value] : request.headers) {
        headers[name] = value;
    }
    return Json::object({{"method", request.method},
                         {"path", request.path},
                         {"query", query},
                         {"headers", headers},
                         {"length", request.body.size()}});
}

/// Does what every runtime's contract function does.
Response handle(const Request& request) {
    const std::string& path = request.path;
    if (path == "/json") {
        return Json::object({{"hello", "world"}, {"unicode", "żółw 🐢"}, {"list", Json::array({1, 2.5, nullptr, true})}});
    } else if (path == "/echo") {
        return Response::bytes(request.body).header("content-type", request.headers.get("content-type").value_or(""));
    } else if (path == "/inspect") {
        return inspect(request);
    } else if (path == "/text") {
        return "text ✓";
    } else if (path == "/binary") {
        std::string bytes(256, '\0');
        std::iota(bytes.begin(), bytes.end(), '\0');
        return Response::bytes(bytes);
    } else if (path == "/empty") {
        return Response::empty();
    } else if (path == "/status") {
        return Response::text("teapot").status(418).header("x-colour", "blue");
    } else if (path == "/split") {
        return Response::text("").header("x-colour", "blue\r\nx-split: 1");
    } else if (path == "/raise") {
        throw std::runtime_error("the reason ✗");
    } else if (path == "/crash") {
        std::_Exit(3);
    } else if (path == "/sleep") {
        int milliseconds = std::stoi(request.query("ms").value_or("0"));
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        return Json::object({{"slept", milliseconds}});
    } else if (path == "/environment") {
        const char* greeting = std::getenv("GREETING");
        return Json::object({{"GREETING", greeting ? Json(greeting) : Json()}});
    } else if (path == "/log") {
        std::cout << "to stdout ✓\n";
        std::cerr << "to stderr\n";
        martlet::log::warning("a warning");
        return "logged";
    } else if (path == "/say") {
        martlet::log::warning(request.query("word").value_or("") + " before");
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        martlet::log::warning(request.query("word").value_or("") + " after");
        return "said";
    } else if (path == "/count") {
        return Json::object({{"count", ++count}});
    } else if (path == "/stream") {
        return Response::stream([](const martlet::Write& write) {
            write("one\n");
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            write("two\n");
        });
    } else if (path == "/length") {
        return Json::object({{"length", request.body.size()}});
    } else if (path == "/large") {
        return std::string(5'000'000, 'x');
    }
    return Response("there is no " + path).status(404);
}
