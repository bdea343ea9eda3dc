"""One request and its response, on their way through."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from martlet.errors import PROBLEM_CONTENT_TYPE, MartletError

if TYPE_CHECKING:
    from martlet.http.connection import ServerConnection

Header = tuple[bytes, bytes]
"""A header's name in lower case, and its value."""

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
BODILESS = frozenset({204, 304})
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


def status_line(status: int) -> bytes:
    """Returns the first line of a response, with its line end."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class BodySink(Protocol):
    """Where a request body goes, and who hears of a client that left."""

    def body(self, data: bytes) -> None:
        """Takes the next piece of the body."""

    def body_end(self) -> None:
        """The body is complete."""

    def client_gone(self) -> None:
        """The client closed its connection; nobody reads the response any more."""

    def resume_response(self) -> None:
        """The client's connection takes data again."""

    def pause_response(self) -> None:
        """The client's connection is full."""


class Exchange:
    """A request as the server connection reads it, and the way back for its response.

    The request's head is complete when an exchange is handed over; its body may still be coming: pieces gather in
    ``chunks`` until a sink takes over with `take_body`. The response is one `answer` or `problem`, or a `start` with
    any number of `write`, the last one marked (or `abort`).

    Attributes:
        method: ``b"GET"``.
        target: path and query as sent, beginning with ``/``.
        headers: all headers in their order.
        content_length: of the request body, bytes; None while it is chunked and not complete.
        began: `time.monotonic` when the request's first byte was there.
        received: bytes of the request body that have come.
        sent: bytes of the response body that an upstream has passed on.
        request_id: see `martlet.gateway`.
        context: whatever the application attaches (the function's target, say).
    """

    __slots__ = (
        "authorization",
        "began",
        "chunks",
        "complete",
        "connection",
        "content_length",
        "context",
        "expects_continue",
        "framed_by_length",
        "given_id",
        "gone",
        "headers",
        "host",
        "http10",
        "keep_alive",
        "method",
        "received",
        "request_id",
        "sent",
        "sink",
        "started",
        "target",
        "upgrade",
    )

    def __init__(self, connection: ServerConnection, began: float, headers: list[Header]) -> None:
        self.connection = connection
        self.began = began
        self.method = b""
        self.target = b""
        self.headers = headers
        self.host: bytes | None = None
        self.authorization: bytes | None = None
        self.given_id: bytes | None = None
        self.content_length: int | None = 0
        self.chunks: list[bytes] = []
        self.received = 0
        self.sent = 0
        self.complete = False
        self.expects_continue = False
        self.framed_by_length = True
        self.upgrade = False
        self.http10 = False
        self.keep_alive = True
        self.sink: BodySink | None = None
        self.started = False
        self.gone = False
        self.request_id = ""
        self.context: Any = None

    def repeat(self, connection: ServerConnection, began: float, body: bytes) -> Exchange:
        """Returns a complete exchange with the same head and another body of the same length.

        ``headers`` is the same list, so whoever keeps something that follows from it can tell.
        """
        exchange = Exchange(connection, began, self.headers)
        exchange.method = self.method
        exchange.target = self.target
        exchange.host = self.host
        exchange.authorization = self.authorization
        exchange.given_id = self.given_id
        exchange.content_length = self.content_length
        exchange.received = len(body)
        exchange.complete = True
        if body:
            exchange.chunks.append(body)
        return exchange

    def header(self, name: bytes) -> bytes | None:
        """Returns the first header of that name (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def take_body(self, sink: BodySink) -> bytes:
        """Returns what has come of the body; the rest, if any, goes to ``sink``."""
        self.sink = sink
        chunks, self.chunks = self.chunks, []
        if not self.complete:
            self.connection.body_wanted(self)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def give_back(self, chunks: list[bytes]) -> None:
        """Undoes `take_body`, with all that has come since: somebody else takes it."""
        self.sink = None
        self.chunks = chunks
        if self.complete:
            self.content_length = self.received

    def framing(self) -> bytes:
        """Returns the header lines that say how the body is framed when it is sent on, and if it is an upgrade."""
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\n" if self.upgrade else b""
        if self.content_length is None:
            return upgrade + b"transfer-encoding: chunked\r\n"
        if self.content_length or self.method in _WITH_BODY:
            return upgrade + b"content-length: %d\r\n" % self.content_length
        return upgrade

    def answer(self, status: int, body: bytes = b"", headers: tuple[Header, ...] = ()) -> None:
        """Sends a whole response."""
        head = [status_line(status)]
        head += [b"%b: %b\r\n" % header for header in headers]
        if status not in BODILESS:
            head.append(b"content-length: %d\r\n" % len(body))
        if self.request_id:
            head.append(b"x-request-id: %b\r\n" % self.request_id.encode())
        self.start(b"".join(head), len(body), b"" if self.method == b"HEAD" else body, last=True)

    def answer_json(self, status: int, document: Any, headers: tuple[Header, ...] = ()) -> None:
        """Sends ``document`` as JSON."""
        self.answer(status, orjson.dumps(document), ((b"content-type", b"application/json"), *headers))

    def problem(self, error: MartletError, headers: tuple[Header, ...] = ()) -> None:
        """Sends a problem document; cuts the connection where a response has begun already."""
        if self.started:
            self.abort()
            return
        if error.retry_after is not None:
            headers = (*headers, (b"retry-after", b"%d" % max(1, round(error.retry_after))))
        if error.status == 401:
            headers = (*headers, (b"www-authenticate", b"Bearer"))
        body = error.body(self.request_id)
        self.answer(error.status, body, ((b"content-type", PROBLEM_CONTENT_TYPE.encode()), *headers))

    def start(self, head: bytes, length: int | None, body: bytes = b"", *, last: bool = False) -> None:
        """Sends the head of a response, with what there is of its body, in one write.

        Args:
            head: the status line and headers, each with its line end; no framing headers unless ``length`` is known,
                no ``connection``, and no empty line.
            length: bytes of the body; None: unknown, it is framed as chunks (HTTP/1.0: by the end of the connection).
            body: the first piece of the body.
            last: it is the only piece; the connection goes on to the next request.
        """
        self.started = True
        self.connection.start_response(self, head, length, body, last)

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Sends a piece of the body; the ``last`` one (it may be empty) ends the response."""
        self.connection.write_body(self, data, last)

    def abort(self) -> None:
        """Cuts the client's connection, so that it cannot take a broken response for a whole one."""
        self.connection.abort()
