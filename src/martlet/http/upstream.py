"""The upstream side of HTTP/1.1: one connection to an instance, another lane, or control.

An upstream carries one exchange at a time. What comes back may be hostile (an instance runs other people's code): it
is parsed strictly, its head is bounded, and nothing of it reaches the client but a status, headers and a body.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import cast

import httptools

from martlet.http.exchange import Exchange, Header, status_line

MAX_RESPONSE_HEAD = 64 * 1024
MAX_RESPONSE_HEADERS = 256
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that speak of one connection; what frames a body is written anew on each."""


class BadResponse(Exception):
    """What came back is not a response that may be passed on."""


class Upstream(asyncio.Protocol, ABC):
    """One connection; see the module. Subclasses say what becomes of a response by the ``on_…`` methods."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.exchange: Exchange | None = None
        self.closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._head_done = False
        self._head_bytes = 0
        self._bytes_without_body = 0
        self._headers: list[Header] = []
        self._status = 0
        self._length: int | None = None
        self._chunked = False
        self._until_close = False
        self._head: bytes | None = None
        self._pieces: list[bytes] = []
        self._interim = False
        self._done = False
        self._reusable = True
        self._chunked_request = False
        self._request_done = True
        self._tunnel = False
        self._last_head: tuple[bytes, int, int, list[Header]] | None = None

    # -- for whoever sends requests

    def send(self, exchange: Exchange, head: bytes, last: bytes = b"") -> None:
        """Sends the request of ``exchange`` and passes its body on as it comes.

        Args:
            exchange: whose request it is; its response comes back here.
            head: the request line and headers, each with its line end, without those that frame the body.
            last: the header lines that are another for every request. They go last, so that whoever reads it may know
                all before them again.
        """
        self.exchange = exchange
        body = exchange.take_body(self)
        self._chunked_request = exchange.content_length is None
        self._request_done = exchange.complete
        if self._chunked_request and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        self.transport.write(b"%b%b%b\r\n%b" % (head, exchange.framing(), last, body))

    def close(self) -> None:
        """Cuts the connection; `on_lost` follows."""
        if self.transport is not None and not self.closed:
            self.transport.abort()

    # -- for subclasses

    @abstractmethod
    def on_head(self, exchange: Exchange, status: int, headers: list[Header]) -> bytes | None:
        """The head of the response is there; ``headers`` are those for the client, the `HOP_BY_HOP` left out.

        Returns:
            The head to send to the client, without framing; None to keep the whole response from it (`on_end` gets
            what was gathered).
        """

    @abstractmethod
    def on_end(self, exchange: Exchange, kept: bytes | None) -> None:
        """The response is complete, and the connection is free again unless it is ``closed``.

        Args:
            exchange: it has been answered, unless ``kept`` is given.
            kept: the body, where `on_head` kept the response from the client.
        """

    @abstractmethod
    def on_client_gone(self, exchange: Exchange) -> None:
        """Nobody waits for the response any more."""

    @abstractmethod
    def on_lost(self, exchange: Exchange | None, why: str, *, cut: bool) -> None:
        """The connection is closed; ``exchange`` was under way. If its response has not ``started``, answer it.

        Args:
            exchange: None where nothing was asked.
            why: what has happened.
            cut: whether this end has closed it, because what came was no response.
        """

    # -- the request's body (`BodySink`)

    def body(self, data: bytes) -> None:
        """A piece of the request body, or of the tunnel."""
        if self._chunked_request and not self._tunnel:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.transport.write(data)

    def body_end(self) -> None:
        """The request is complete."""
        self._request_done = True
        if self._tunnel:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()  # over TLS both ways end at once, after what was written
        elif self._chunked_request:
            self.transport.write(b"0\r\n\r\n")

    def client_gone(self) -> None:
        """See `BodySink.client_gone`."""
        if self.exchange is not None:
            self.on_client_gone(self.exchange)

    def pause_response(self) -> None:
        """See `BodySink.pause_response`."""
        if not self.closed:
            self.transport.pause_reading()

    def resume_response(self) -> None:
        """See `BodySink.resume_response`."""
        if not self.closed:
            self.transport.resume_reading()

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        """The upstream takes the request body slower than the client sends it."""
        if self.exchange is not None and not self.exchange.gone:
            self.exchange.connection.pause_reading()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        if self.exchange is not None and not self.exchange.gone:
            self.exchange.connection.resume_reading()

    def eof_received(self) -> bool:
        """The upstream has ended its side: all there is has come."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream is gone; a response that is framed by the end of the connection is complete now."""
        if self.closed:
            return
        self.closed = True
        exchange = self.exchange
        if exchange is not None and self._until_close and exc is None:
            self._flush(exchange, last=True)
            return
        self.exchange = None
        if exchange is not None and self._tunnel:
            exchange.connection.end_tunnel()
            self.on_end(exchange, None)
            return
        why = f"the connection was lost: {exc}" if exc else "the connection was closed"
        self.on_lost(exchange, why, cut=False)

    def data_received(self, data: bytes) -> None:
        """Parses, then passes on in one write what has come."""
        exchange = self.exchange
        if self._tunnel:
            if exchange is not None and not exchange.gone:
                exchange.connection.write_body(exchange, data, False)
            return
        if exchange is None:
            self.close()  # nothing was asked
            return
        if not self._head_bytes:
            last = self._last_head
            if (
                last is not None
                and len(data) == last[1]
                and data.startswith(last[0])
                and exchange.method != b"HEAD"
            ):
                self._repeat(exchange, data[len(last[0]) :])
                return
        at_start = not self._head_bytes
        self._head_bytes += len(data)
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._open_tunnel(exchange, data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._broken(f"not a valid HTTP response: {error.__context__ or error}")
            return
        if self._bytes_without_body > MAX_RESPONSE_HEAD and not self._done:
            self._broken(f"the response's head or trailers are over {MAX_RESPONSE_HEAD} bytes")
            return
        if at_start and self._done:
            self._remember(exchange, data)
        self._flush(exchange, self._done)

    # -- the parser's side

    def on_message_begin(self) -> None:
        """A response begins; a second one to one request is a fault."""
        if self._done:
            raise BadResponse("more than one response to a request")

    def on_status(self, status: bytes) -> None:
        """The reason phrase; ours is sent instead."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what trails a chunked body comes here too, and is not passed on."""
        if self._head_done:
            return
        if len(self._headers) >= MAX_RESPONSE_HEADERS:
            raise BadResponse("too many headers")
        name = name.lower()
        if name not in HOP_BY_HOP:
            self._headers.append((name, value))
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BadResponse("the only transfer-encoding understood is chunked")
            self._chunked = True

    def on_headers_complete(self) -> None:
        """The head of the response is complete."""
        exchange = self.exchange
        assert exchange is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._headers = []
            self._length = None
            self._interim = True
            return
        if status == 101 and not exchange.upgrade:
            raise BadResponse("101 to a request that asked for no upgrade")
        if self._head_bytes > MAX_RESPONSE_HEAD:
            self._check_head()
        if not 100 <= status <= 599:
            raise BadResponse(f"{status} is not a status")
        self._head_done = True
        self._bytes_without_body = 0
        self._status = status
        bodiless = status in (101, 204, 304) or exchange.method == b"HEAD"
        self._until_close = not bodiless and not self._chunked and self._length is None
        self._head = self.on_head(exchange, status, self._headers)
        if exchange.method == b"HEAD":
            # The parser would wait for the body that content-length announces and that never comes.
            self._done = True
            self._reusable = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        """A piece of the response body."""
        if self._done:
            raise BadResponse("a body where there can be none")
        self._bytes_without_body = 0
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The response is complete."""
        if self._interim:
            self._interim = False
        elif not self._done:
            self._done = True
            self._reusable = self._parser.should_keep_alive()

    # -- inside

    def _remember(self, exchange: Exchange, data: bytes) -> None:
        """Keeps the head of a response that was one read, from its first byte to its last, and ordinary."""
        self._last_head = None
        if (
            self._length is not None
            and self._head is not None
            and self._reusable
            and exchange.method != b"HEAD"
        ):
            head = data[: len(data) - self._length]
            if (
                head.endswith(b"\r\n\r\n")
                and head.startswith(b"HTTP/1.1 ")
                and self._status not in (204, 304)
            ):
                self._last_head = (head, len(data), self._status, self._headers)

    def _repeat(self, exchange: Exchange, body: bytes) -> None:
        """Passes on a response whose head is the last one's to the byte, and its body of the same length."""
        assert self._last_head is not None
        _, _, status, headers = self._last_head
        head = self.on_head(exchange, status, headers)
        assert head is not None
        size = len(body)
        if not exchange.gone:
            exchange.sent = size
            exchange.start(b"%bcontent-length: %d\r\n" % (head, size), size, body, last=True)
        if self._request_done:
            self.exchange = None  # all else is as it was before the response came
            self.on_end(exchange, None)
        else:
            self._end(exchange, None)

    def _check_head(self) -> None:
        """Much has come since the head began; some of it may be the body."""
        if sum(len(name) + len(value) + 4 for name, value in self._headers) > MAX_RESPONSE_HEAD:
            raise BadResponse(f"the response's head is over {MAX_RESPONSE_HEAD} bytes")

    def _flush(self, exchange: Exchange, last: bool) -> None:
        """Passes on what has been parsed; ends the exchange where the response is complete."""
        if not self._head_done:
            return
        kept: bytes | None = None
        if self._head is None and not exchange.started:
            if not last:
                if sum(map(len, self._pieces)) > MAX_RESPONSE_HEAD:
                    self._broken("an error's description is too large")
                return
            kept = b"".join(self._pieces)
        elif not exchange.gone:
            pieces, self._pieces = self._pieces, []
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            exchange.sent += len(body)
            if not exchange.started:
                self._start(exchange, body, last)
            elif body or last:
                exchange.write(body, last=last)
        if last:
            self._end(exchange, kept)

    def _start(self, exchange: Exchange, body: bytes, last: bool) -> None:
        head, length = self._head, self._length
        assert head is not None
        if self._status in (204, 304) or (exchange.method == b"HEAD" and length is None):
            exchange.start(head, 0, b"", last=last)
            return
        if length is None and last:
            length = len(body)
        if length is not None:
            head += b"content-length: %d\r\n" % length
        exchange.start(head, length, body, last=last)

    def _end(self, exchange: Exchange, kept: bytes | None) -> None:
        reusable = self._reusable and self._request_done and not self._until_close
        self.exchange = None
        if reusable:
            self._head_done = False
            self._head_bytes = 0
            self._bytes_without_body = 0
            self._headers = []
            self._length = None
            self._chunked = False
            self._head = None
            self._pieces = []
            self._done = False
        else:
            self.closed = True
            self.transport.abort()
        self.on_end(exchange, kept)

    def _open_tunnel(self, exchange: Exchange, rest: bytes) -> None:
        self._tunnel = True
        head = self._head or status_line(101)
        early = exchange.connection.start_tunnel(
            exchange, head + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n" + rest, self
        )
        if early:
            self.transport.write(early)

    def _broken(self, why: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.closed = True
        self.transport.abort()
        self.on_lost(exchange, why, cut=True)
