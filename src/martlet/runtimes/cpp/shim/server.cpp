// The server: a thread for each connection, from accept to close.
#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim.hpp"

namespace martlet {

double startup = 0;

namespace {

constexpr int listener = 3, answer = 4;
volatile std::sig_atomic_t stopping = 0;

/// Wakes whoever waits in accept; all that may be done in a signal's handler.
void terminate(int) {
    stopping = 1;
    shutdown(listener, SHUT_RDWR);
}

/// Answers what the platform itself asks.
std::optional<Response> internal(const Head& head) {
    if (!head.target.starts_with("/_martlet/")) {
        return std::nullopt;
    }
    if (head.method == "GET" && head.target == "/_martlet/health") {
        return Json::object({{"status", "ok"}});
    }
    auto error = Json::object({{"type", "NotFound"}, {"message", "there is no " + head.target}});
    return Response(Json::object({{"error", error}})).status(404);
}

class Server {
  public:
    Server(Handler handler, std::int64_t max_body) : handler_(std::move(handler)), max_body_(max_body) {}

    void run() {
        while (!stopping) {
            int descriptor = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            if (descriptor >= 0) {
                begin(std::make_shared<Connection>(descriptor, max_body_));
            }
        }
        std::unique_lock lock(mutex_);
        while (!open_.empty()) {
            for (auto& connection : open_) {
                connection->end_if_idle();
            }
            closed_.wait_for(lock, std::chrono::milliseconds(100));
        }
    }

  private:
    void begin(std::shared_ptr<Connection> connection) {
        {
            std::lock_guard lock(mutex_);
            open_.push_back(connection);
        }
        try {
            std::thread([this, connection] {
                serve(*connection);
                forget(connection);
            }).detach();
        } catch (const std::system_error&) {
            forget(connection); // no room for another thread: the peer sees its connection closed
        }
    }

    void forget(const std::shared_ptr<Connection>& connection) {
        std::lock_guard lock(mutex_);
        std::erase(open_, connection);
        closed_.notify_all();
    }

    void serve(Connection& connection) {
        try {
            while (request(connection)) {
            }
        } catch (const BadRequest& bad) {
            Head head;
            head.keep_alive = false;
            try {
                send(connection, head, Response(bad.what()).status(bad.status));
            } catch (const Gone&) {
            }
        } catch (const Gone&) {
        }
    }

    /// Answers one request; returns whether the connection may carry another one.
    bool request(Connection& connection) {
        Head head = connection.head();
        std::string body = connection.body(head.length);
        if (auto response = internal(head)) {
            return send(connection, head, *response);
        }
        Request request = make_request(head, std::move(body));
        log::work_on(request.id());
        Response response = respond(request);
        bool go_on = send(connection, head, response);
        std::fflush(stdout);
        log::work_on("");
        return go_on;
    }

    Response respond(const Request& request) const {
        try {
            return handler_(request);
        } catch (...) {
            return failure();
        }
    }

    Handler handler_;
    std::int64_t max_body_;
    std::mutex mutex_;
    std::condition_variable closed_;
    std::vector<std::shared_ptr<Connection>> open_;
};

} // namespace

void stop() { terminate(SIGTERM); }

int serve(Handler handler) {
    auto started = std::chrono::steady_clock::now();
    auto variable = [](const char* name) { return std::getenv(name) ? std::getenv(name) : ""; };
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGTERM, terminate);
    fcntl(listener, F_SETFD, FD_CLOEXEC);
    setvbuf(stdout, nullptr, _IOLBF, 4096); // a line is logged when it is printed
    if (*variable("MARTLET_CODE") && chdir(variable("MARTLET_CODE")) != 0) {
        std::perror(variable("MARTLET_CODE"));
        return 1;
    }
    Server server(std::move(handler), std::atoll(variable("MARTLET_MAX_BODY")));
    startup = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    std::string line = Json::object({{"mode", "handler"}, {"load_ms", startup * 1000}}).dump() + "\n";
    if (write(answer, line.data(), line.size()) < 0 || close(answer) != 0) {
        return 1;
    }
    server.run();
    return 0;
}

} // namespace martlet
