"""A platform that answers what a test tells it to, over real HTTP."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the fake answers: JSON unless ``body`` is bytes."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, code: str, detail: str, **headers: str) -> Answer:
    """A problem document, as the platform writes them."""
    document = {"title": "?", "status": status, "detail": detail, "code": code, "request_id": "request-1"}
    return Answer(
        document, status, {"content-type": "application/problem+json", "x-request-id": "request-1", **headers}
    )


def events(*documents: Any) -> Answer:
    """Server-sent events."""
    text = "".join(f"data: {json.dumps(document)}\n\n" for document in documents)
    return Answer(text.encode(), headers={"content-type": "text/event-stream"})


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakePlatform:
    """Answers by method and path, without the query; of several answers the last one stays."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | list[Answer]] = {}
        self.seen: list[Seen] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "FakePlatform":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, *answers: Any) -> None:
        """Scripts the answers to a request; what is no `Answer` is the JSON of one."""
        self.answers[method, path] = [each if isinstance(each, Answer) else Answer(each) for each in answers]

    def requests(self, method: str) -> list[Seen]:
        """The requests with this method."""
        return [each for each in self.seen if each.method == method]

    def _find(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        answers = self.answers.get((seen.method, seen.path.partition("?")[0]))
        if isinstance(answers, list):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        return answers or problem(404, "not_found", f"the test scripted no {seen.method} {seen.path}")

    def _handler(platform) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                found = platform._find(Seen(self.command, self.path, headers, body))
                content = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
                self.send_response(found.status)
                for name, value in ({"content-type": "application/json"} | found.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, *_: object) -> None:
                """Says nothing: the tests look at what they care about."""

        return Handler


CONFIG = {
    "execution_mode": "process",
    "network": "none",
    "runtime": "python3.11",
    "handler": "handle",
    "timeout": 30.0,
    "memory": "128Mi",
    "cpu_limit": None,
    "dependencies": [],
    "environment": {"GREETING": "hi"},
}
FUNCTION = {
    "name": "greeter",
    "latest": 2,
    "state": "ready",
    "created": 1e9,
    "updated": 1e9,
    "config": CONFIG,
}
