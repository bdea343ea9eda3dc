"""What a client of the server sends, parsed into exchanges.

Parsing is llhttp's (through httptools): strict about framing, so that what one hop takes for a request the next does
too. A client that repeats itself, as most do, is parsed once: a read that is the head of the last request to the
byte, with a body of the same length, needs no parser.
"""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httptools

from martlet.errors import BadRequest, BodyTooLarge, HeadTooLarge, MartletError
from martlet.http.exchange import Exchange

if TYPE_CHECKING:
    from martlet.http.connection import ServerConnection

BUFFERED_BODY = 256 * 1024
"""Bytes of a request body that gather before anybody wants it; then the client is not read any more."""
MAX_HEADERS = 128
SPECIAL = frozenset(
    {
        b"host",
        b"content-length",
        b"authorization",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"x-request-id",
    }
)


class RequestReader:
    """Reads the requests of one connection.

    Attributes:
        reading: the request that has begun and is not complete.
        in_head: whether it is the head that is not.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self.reading: Exchange | None = None
        self.in_head = False
        self._connection = connection
        self._limits = connection.limits
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._begun = 0
        self._newest: Exchange | None = None  # whose head was complete last
        self._last_head: tuple[bytes, int, Exchange] | None = None

    def repeated(self, data: bytes) -> Exchange | None:
        """Returns the request that ``data`` is, if it is one like the last, to be parsed no more."""
        if self._last_head is None or self.reading is not None:
            return None
        head, size, last = self._last_head
        if len(data) != size or not data.startswith(head):
            return None
        return last.repeat(self._connection, monotonic(), data[len(head) :])

    def feed(self, data: bytes) -> None:
        """Parses what a client sent; the connection hears what has come.

        Raises:
            MartletError: the request that is being read is at fault; nothing can follow it.
        """
        at_start = self.reading is None
        self._begun = 0 if at_start else 2
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            if isinstance(cause, MartletError):
                raise cause from None
            raise BadRequest(f"this is not HTTP/1.1: {error}") from None
        if at_start and self._begun == 1 and self.reading is None:
            self._remember(data)

    def _remember(self, data: bytes) -> None:
        """Keeps the head of a request that was one read, from its first byte to its last."""
        exchange = self._newest
        assert exchange is not None
        plain = exchange.keep_alive and not (exchange.http10 or exchange.upgrade or exchange.expects_continue)
        if plain and exchange.framed_by_length:
            head = data[: len(data) - exchange.received]
            self._last_head = (head, len(data), exchange) if head.endswith(b"\r\n\r\n") else None

    def _parse(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            exchange = self._newest
            assert exchange is not None
            if not exchange.upgrade:
                self._parser = self._parser_behind(exchange)
                if rest:
                    self._parse(rest)
                return
            exchange.keep_alive = False  # whatever the answer, no request can follow
            self._connection.expect_tunnel(rest)
        if self.reading is None:
            self._head_bytes = 0
        elif self._head_bytes > self._limits.max_header:
            raise self._head_too_large()

    def _parser_behind(self, exchange: Exchange) -> httptools.HttpRequestParser:
        """Returns the parser of what follows a request for an upgrade that is not made (h2c, say).

        llhttp ends with such a head, as if another protocol followed; in truth its body does, or the next request.
        Behind a body the connection is closed.
        """
        length = exchange.content_length if exchange.framed_by_length else None
        if length == 0:
            return httptools.HttpRequestParser(self)
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        exchange.content_length, exchange.framed_by_length = length, True
        parser = httptools.HttpRequestParser(
            SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        )
        parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n%b\r\n\r\n" % framing)
        exchange.complete = exchange.keep_alive = False
        self.reading = exchange
        return parser

    # -- the parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self.reading = Exchange(self._connection, monotonic(), [])
        self._begun += 1
        self.in_head = True
        self._connection.waits_since = self.reading.began

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        assert self.reading is not None
        self.reading.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what trails a chunked body comes here too, and is not the head's business."""
        assert self.reading is not None
        if not self.in_head:
            return
        headers = self.reading.headers
        if len(headers) >= MAX_HEADERS:
            raise HeadTooLarge(f"the request has more than {MAX_HEADERS} headers")
        name = name.lower()
        headers.append((name, value))
        if name in SPECIAL:
            self._special(self.reading, name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: what it says about the body and the connection is checked here."""
        exchange = self.reading
        assert exchange is not None
        self.in_head = False
        parser = self._parser
        exchange.method = parser.get_method()
        exchange.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        if version != "1.1":
            exchange.http10 = version == "1.0"
            if not exchange.http10:
                raise BadRequest("the version of HTTP must be 1.1 or 1.0")
        if self._begun != 1 or self._head_bytes > self._limits.max_header:
            self._check_head(exchange)
        self._head_bytes = 0
        if exchange.method == b"CONNECT":
            raise BadRequest("CONNECT is for proxies")
        if exchange.upgrade:
            exchange.upgrade = parser.should_upgrade()
        length = exchange.content_length
        if exchange.upgrade and length != 0:
            raise BadRequest("a request for a WebSocket has no body")
        if length is None and exchange.http10:
            raise BadRequest("HTTP/1.0 has no transfer-encoding")
        if exchange.target[:1] != b"/":
            exchange.target = _origin_form(exchange.target)
        if length is not None and length > self._limits.max_body:
            self._check_body(exchange, length)
        self._newest = exchange
        self._connection.arrived(exchange)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        exchange = self.reading
        assert exchange is not None
        exchange.received += len(data)
        self._head_bytes = 0
        if exchange.received > self._limits.max_body:
            self._check_body(exchange, exchange.received)
        if exchange.sink is not None:
            self._connection.waits_since = monotonic()
            exchange.sink.body(data)
            return
        exchange.chunks.append(data)
        if exchange.received > BUFFERED_BODY:
            self._connection.pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete."""
        exchange = self.reading
        assert exchange is not None
        exchange.complete = True
        self.reading = None
        self._head_bytes = 0
        if exchange.sink is not None:
            exchange.sink.body_end()
        elif exchange.content_length is None:
            exchange.content_length = exchange.received
            exchange.framed_by_length = False

    def _special(self, exchange: Exchange, name: bytes, value: bytes) -> None:
        """Notes a header that says how the request itself is to be read, or who sends it."""
        if name == b"host":
            if exchange.host is not None:
                raise BadRequest("there is more than one host header")
            exchange.host = value
        elif name == b"content-length":
            exchange.content_length = int(value)
        elif name == b"authorization":
            if exchange.authorization is not None:
                raise BadRequest("there is more than one authorization header")
            exchange.authorization = value
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BadRequest("the only transfer-encoding understood is chunked")
            exchange.content_length = None
        elif name == b"expect":
            exchange.expects_continue = value.lower() == b"100-continue"
        elif name == b"x-request-id":
            exchange.given_id = value
        elif name == b"upgrade":
            exchange.upgrade = value.lower() == b"websocket"

    def _check_head(self, exchange: Exchange) -> None:
        """Much was read since the head began, some of it perhaps the body, or it began within a read."""
        size = len(exchange.target) + sum(len(name) + len(value) + 4 for name, value in exchange.headers)
        if size > self._limits.max_header:
            raise self._head_too_large()

    def _check_body(self, exchange: Exchange, size: int) -> None:
        """A body is over the general limit; the application may allow some requests more."""
        allowed = self._connection.server.application.max_body(exchange)
        if size > allowed:
            raise BodyTooLarge(f"the body has {size} bytes or more, {allowed} are allowed")

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request line and headers are over {self._limits.max_header} bytes")


def _origin_form(target: bytes) -> bytes:
    """Turns ``http://host/path`` (absolute form) into ``/path``; other forms are not served."""
    if target.lower().startswith((b"http://", b"https://")):
        slash = target.find(b"/", 8)
        return target[slash:] if slash > 0 else b"/"
    if target == b"*":
        return b"/"
    raise BadRequest("the request target must be a path")
