"""The server side of HTTP/1.1: one connection of a client.

Parsing is llhttp's (through httptools): strict about framing, so that what one hop takes for a request the next does
too. Callbacks of the parser only gather; requests are handed over when a read has been parsed to its end, which lets
a small request travel on in one write. A client that repeats itself, as most do, is parsed once: a read that is the
head of the last request to the byte, with a body of the same length, needs no parser. One request runs at a time;
pipelined ones wait their turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import SimpleNamespace
from typing import Any, Protocol, cast

import httptools

from martlet.errors import BadRequest, BodyTooLarge, HeadTooLarge, MartletError, RequestTimeout
from martlet.http.exchange import BodySink, Exchange

MAX_HEADERS = 128
MAX_PIPELINED = 16
BUFFERED_BODY = 256 * 1024
"""Bytes of a request body that gather before anybody wants it; then the client is not read any more."""
WRITE_BUFFER = 1024 * 1024
"""Bytes of a response that may wait for the client; then the upstream is not read any more. Large enough that a
slow client does not hold an instance for an ordinary response."""
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

LINGER = 2.0
"""Seconds that a client's remaining input is read and thrown away after an early answer."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a client may do: sizes in bytes, times in seconds."""

    max_body: int
    max_header: int
    header_timeout: float
    body_timeout: float
    keep_alive_timeout: float
    max_connections: int


class Application(Protocol):
    """What answers the requests of a server."""

    def handle(self, exchange: Exchange) -> None:
        """Answers, now or later; never raises."""

    def max_body(self, exchange: Exchange) -> int:
        """Returns how many bytes the body of this request may have; asked once it has more than the general limit."""

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        """A request that is not HTTP as it should be: gives it an id and answers the error."""


class Server:
    """The connections of one listening socket, their limits and the time they may take."""

    def __init__(self, application: Application, limits: ServerLimits) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[ServerConnection] = set()
        self.closing = False

    def __call__(self) -> ServerConnection:
        """Makes the protocol of a new connection (a protocol factory for asyncio)."""
        return ServerConnection(self)

    async def watch_clients(self, interval: float = 1.0) -> None:
        """Ends connections whose client takes too long; runs until cancelled."""
        while True:
            await asyncio.sleep(interval)
            now = monotonic()
            for connection in tuple(self.connections):
                connection.check_time(now)

    async def drain(self, grace: float) -> None:
        """Closes idle connections now and busy ones after their response, or after ``grace`` seconds."""
        self.closing = True
        for connection in tuple(self.connections):
            connection.close_when_idle()
        deadline = monotonic() + grace
        while self.connections and monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.abort()


class ServerConnection(asyncio.Protocol):
    """One client. See the module.

    Attributes:
        kept: what the application keeps of this client's last request, for the next that is like it.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limits = server.limits
        self.parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.peer = ""
        self.reading: Exchange | None = None
        self.active: Exchange | None = None
        self.waiting: deque[Exchange] = deque()
        self.waits_since = 0.0
        self.head_bytes = 0
        self.in_head = False
        self.begun = 0
        self.last_head: tuple[bytes, int, Exchange] | None = None
        self.kept: Any = None
        self.fault: MartletError | None = None
        self.tunnel: Callable[[bytes], None] | None = None
        self.early: list[bytes] = []
        self.chunked_response = False
        self.close_after = False
        self.lingering = False
        self.write_full_since: float | None = None
        self.read_paused = False

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.waits_since = monotonic()
        self.server.connections.add(self)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if len(self.server.connections) > self.limits.max_connections:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; whoever works for it hears so."""
        self.server.connections.discard(self)
        for exchange in (self.active, self.reading, *self.waiting):
            if exchange is not None and not exchange.gone:
                exchange.gone = True
                if exchange.sink is not None:
                    exchange.sink.client_gone()
        self.waiting.clear()

    def eof_received(self) -> bool:
        """The client sends no more but may still read: what it asked is answered."""
        self.close_after = True
        if self.tunnel is not None and self.active is not None and self.active.sink is not None:
            self.active.sink.body_end()
            return True
        return self.active is not None and self.active.complete and not self.lingering

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        self.write_full_since = monotonic()
        if self.active is not None and self.active.sink is not None:
            self.active.sink.pause_response()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_full_since = None
        if self.active is not None and self.active.sink is not None:
            self.active.sink.resume_response()

    def data_received(self, data: bytes) -> None:
        """Parses, then hands over what has become complete."""
        if self.tunnel is not None:
            self.tunnel(data)
            return
        if self.fault is not None or self.lingering:
            return
        if self.last_head is not None and self.reading is None:
            head, size, last = self.last_head
            if len(data) == size and data.startswith(head):
                exchange = last.repeat(self, monotonic(), data[len(head) :])
                if self.active is None and not self.waiting:
                    self.active = exchange
                    self.server.application.handle(exchange)
                else:
                    self._wait_its_turn(exchange)
                return
        at_start = self.reading is None
        self.begun = 0 if at_start else 2
        try:
            self._parse(data)
        except MartletError as error:
            self.fault = error
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            self.fault = (
                cause if isinstance(cause, MartletError) else BadRequest(f"this is not HTTP/1.1: {error}")
            )
        if at_start and self.begun == 1 and self.reading is None and self.waiting:
            self._remember(data)
        if self.active is None and self.waiting:
            self._next()
        if self.fault is not None:
            self._refuse()

    def _remember(self, data: bytes) -> None:
        """Keeps the head of a request that was one read, from its first byte to its last."""
        exchange = self.waiting[-1]
        plain = exchange.keep_alive and not (exchange.http10 or exchange.upgrade or exchange.expects_continue)
        if plain and self.fault is None and exchange.framed_by_length:
            head = data[: len(data) - exchange.received]
            self.last_head = (head, len(data), exchange) if head.endswith(b"\r\n\r\n") else None

    def _parse(self, data: bytes) -> None:
        self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            exchange = self.waiting[-1]
            if exchange.upgrade:
                exchange.keep_alive = False  # whatever the answer, no request can follow
                self.tunnel = self._gather
                self._gather(rest)
            else:
                self.parser = self._parser_behind(exchange)
                if rest:
                    self._parse(rest)
                return
        if self.reading is None:
            self.head_bytes = 0
        elif self.head_bytes > self.limits.max_header:
            raise self._head_too_large()

    def _gather(self, data: bytes) -> None:
        """Keeps what came before the tunnel is open, and reads no more until it is."""
        self.early.append(data)
        if data:
            self._pause_reading()

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
        self.reading = Exchange(self, monotonic(), [])
        self.begun += 1
        self.in_head = True
        self.waits_since = self.reading.began

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
        parser = self.parser
        exchange.method = parser.get_method()
        exchange.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        if version != "1.1":
            exchange.http10 = version == "1.0"
            if not exchange.http10:
                raise BadRequest("the version of HTTP must be 1.1 or 1.0")
        if self.begun != 1 or self.head_bytes > self.limits.max_header:
            self._check_head(exchange)
        self.head_bytes = 0
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
        if length is not None and length > self.limits.max_body:
            self._check_body(exchange, length)
        self._wait_its_turn(exchange)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        exchange = self.reading
        assert exchange is not None
        exchange.received += len(data)
        self.head_bytes = 0
        if exchange.received > self.limits.max_body:
            self._check_body(exchange, exchange.received)
        if exchange.sink is not None:
            self.waits_since = monotonic()
            exchange.sink.body(data)
            return
        exchange.chunks.append(data)
        if exchange.received > BUFFERED_BODY:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete."""
        exchange = self.reading
        assert exchange is not None
        exchange.complete = True
        self.reading = None
        self.head_bytes = 0
        if exchange.sink is not None:
            exchange.sink.body_end()
        elif exchange.content_length is None:
            exchange.content_length = exchange.received
            exchange.framed_by_length = False

    # -- the exchange's side

    def body_wanted(self, exchange: Exchange) -> None:
        """Somebody reads the body of ``exchange`` now."""
        self.waits_since = monotonic()
        if exchange.expects_continue and not exchange.http10 and not exchange.received:
            exchange.expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.resume_reading()

    def pause_reading(self) -> None:
        """Reads nothing from the client until `resume_reading`."""
        self._pause_reading()

    def resume_reading(self) -> None:
        """Reads from the client again."""
        if self.read_paused and len(self.waiting) <= MAX_PIPELINED:
            self.read_paused = False
            self.waits_since = monotonic()
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def start_response(
        self, exchange: Exchange, head: bytes, length: int | None, body: bytes, last: bool
    ) -> None:
        """See `Exchange.start`."""
        if self.write_full_since is not None and exchange.sink is not None:
            exchange.sink.pause_response()  # the client has yet to read what came before
        self.chunked_response = length is None and not exchange.http10 and exchange.method != b"HEAD"
        if length is None and exchange.http10:
            exchange.keep_alive = False
        if not exchange.complete or self.close_after or self.server.closing:
            exchange.keep_alive = False
        if self.chunked_response:
            head += b"transfer-encoding: chunked\r\n"
        if not exchange.keep_alive:
            head += b"connection: close\r\n\r\n"
        elif exchange.http10:
            head += b"connection: keep-alive\r\n\r\n"
        else:
            head += b"\r\n"
        self.transport.write(head + self._framed(body, last))
        if last:
            self._finished(exchange)

    def write_body(self, exchange: Exchange, data: bytes, last: bool) -> None:
        """See `Exchange.write`."""
        framed = self._framed(data, last)
        if framed:
            self.transport.write(framed)
        if last:
            self._finished(exchange)

    def start_tunnel(self, exchange: Exchange, head: bytes, sink: BodySink) -> bytes:
        """Switches protocols: ``head`` is sent as it is, then bytes go both ways untouched.

        Returns:
            What the client sent already after its request.
        """
        exchange.started = True
        exchange.sink = sink
        exchange.keep_alive = False
        self.chunked_response = False
        self.transport.write(head)
        early, self.early = b"".join(self.early), []
        self.tunnel = sink.body
        self.resume_reading()
        return early

    def end_tunnel(self) -> None:
        """Ends what `start_tunnel` began, once all that was written has been sent."""
        self.active = None
        self._close()

    def close_when_idle(self) -> None:
        """Takes no further request."""
        self.close_after = True
        if self.active is None and not self.waiting and self.reading is None:
            self._close()

    def abort(self) -> None:
        """Cuts the connection."""
        self.transport.abort()

    def check_time(self, now: float) -> None:
        """Ends the connection if the client has been silent, or has not read, for too long."""
        silent = now - self.waits_since
        if self.lingering:
            if silent > LINGER:
                self.abort()
        elif self.write_full_since is not None:
            if now - self.write_full_since > self.limits.body_timeout:
                self.abort()
        elif self.in_head:
            if silent > self.limits.header_timeout:
                self._time_out(f"the head was not complete within {self.limits.header_timeout} s")
        elif self.reading is not None:
            if not self.read_paused and silent > self.limits.body_timeout:
                self._time_out(f"nothing came of the body for {self.limits.body_timeout} s")
        elif self.active is None and not self.waiting and silent > self.limits.keep_alive_timeout:
            self._close()

    # -- inside

    def _wait_its_turn(self, exchange: Exchange) -> None:
        self.waiting.append(exchange)
        if len(self.waiting) > MAX_PIPELINED:
            self._pause_reading()

    def _next(self) -> None:
        if self.active is not None or not self.waiting or self.transport.is_closing():
            return
        exchange = self.waiting.popleft()
        self.active = exchange
        if self.read_paused and exchange.received <= BUFFERED_BODY:
            self.resume_reading()
        self.server.application.handle(exchange)

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
        if size > self.limits.max_header:
            raise self._head_too_large()

    def _check_body(self, exchange: Exchange, size: int) -> None:
        """A body is over the general limit; the application may allow some requests more."""
        allowed = self.server.application.max_body(exchange)
        if size > allowed:
            raise BodyTooLarge(f"the body has {size} bytes or more, {allowed} are allowed")

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request line and headers are over {self.limits.max_header} bytes")

    def _framed(self, data: bytes, last: bool) -> bytes:
        if not self.chunked_response:
            return data
        piece = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return piece + b"0\r\n\r\n" if last else piece

    def _finished(self, exchange: Exchange) -> None:
        if self.write_full_since is not None and exchange.sink is not None:
            exchange.sink.resume_response()  # it may serve others, whether or not this client catches up
        exchange.sink = None
        self.active = None
        if not exchange.complete:
            self._linger()
        elif not exchange.keep_alive:
            self._close()
        else:
            self.waits_since = monotonic()
            if self.read_paused:
                self.resume_reading()
            if self.waiting:
                asyncio.get_running_loop().call_soon(self._next)
            elif self.fault is not None:
                asyncio.get_running_loop().call_soon(self._refuse)

    def _refuse(self) -> None:
        """Answers a request that is at fault, once those before it are answered, and closes."""
        assert self.fault is not None
        if self.transport.is_closing() or self.lingering:
            return
        if self.waiting and self.waiting[-1] is self.reading:
            self.waiting.pop()
        if self.waiting or (self.active is not None and self.active is not self.reading):
            return  # its turn comes in `_finished`
        exchange = self.reading or Exchange(self, monotonic(), [])
        if exchange.started:
            self.abort()
            return
        if exchange.sink is not None:
            exchange.sink.client_gone()
            exchange.sink = None
        exchange.complete = False
        self.active = exchange
        self.server.application.refused(exchange, self.fault)

    def _linger(self) -> None:
        """Closes so that the response arrives: a close with unread input would reset the connection under it."""
        self.lingering = True
        self.waits_since = monotonic()
        if not self.transport.is_closing():
            self.transport.write_eof()
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()

    def _time_out(self, why: str) -> None:
        self.fault = RequestTimeout(why)
        if self.active is None:
            self._refuse()
        else:
            self.abort()

    def _pause_reading(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def _origin_form(target: bytes) -> bytes:
    """Turns ``http://host/path`` (absolute form) into ``/path``; other forms are not served."""
    if target.lower().startswith((b"http://", b"https://")):
        slash = target.find(b"/", 8)
        return target[slash:] if slash > 0 else b"/"
    if target == b"*":
        return b"/"
    raise BadRequest("the request target must be a path")
