"""One connection of a client of the server.

What a client sends becomes exchanges (`request`); those are handed over when a read has been parsed to its end, which
lets a small request travel on in one write. One request runs at a time; pipelined ones wait their turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from martlet.errors import MartletError, RequestTimeout
from martlet.http.exchange import BodySink, Exchange
from martlet.http.request import BUFFERED_BODY, RequestReader

if TYPE_CHECKING:
    from martlet.http.server import Server

MAX_PIPELINED = 16
WRITE_BUFFER = 1024 * 1024
"""Bytes of a response that may wait for the client; then the upstream is not read any more. Large enough that a
slow client does not hold an instance for an ordinary response."""
LINGER = 2.0
"""Seconds that a client's remaining input is read and thrown away after an early answer."""


class ServerConnection(asyncio.Protocol):
    """One client. See the module.

    Attributes:
        kept: what the application keeps of this client's last request, for the next that is like it.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limits = server.limits
        self.reader = RequestReader(self)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.peer = ""
        self.active: Exchange | None = None
        self.waiting: deque[Exchange] = deque()
        self.waits_since = 0.0
        self.kept: Any = None
        self.fault: MartletError | None = None
        self.tunnel: Callable[[bytes], None] | None = None
        self.early: list[bytes] = []
        self.chunked_response = False
        self.close_after = False
        self.lingering = False
        self.write_full_since: float | None = None
        self.read_paused = False
        self.half_closes = True  # one over TLS ends both ways at once

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = cast(asyncio.Transport, transport)
        self.half_closes = self.transport.can_write_eof()
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
        for exchange in (self.active, self.reader.reading, *self.waiting):
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
            return self.half_closes
        return self.half_closes and self.active is not None and self.active.complete and not self.lingering

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
        exchange = self.reader.repeated(data)
        if exchange is not None:
            if self.active is None and not self.waiting:
                self.active = exchange
                self.server.application.handle(exchange)
            else:
                self.arrived(exchange)
            return
        try:
            self.reader.feed(data)
        except MartletError as error:
            self.fault = error
        if self.active is None and self.waiting:
            self._next()
        if self.fault is not None:
            self._refuse()

    # -- the reader's side

    def arrived(self, exchange: Exchange) -> None:
        """The head of a request is complete."""
        self.waiting.append(exchange)
        if len(self.waiting) > MAX_PIPELINED:
            self.pause_reading()

    def expect_tunnel(self, early: bytes) -> None:
        """What follows is no HTTP: ``early`` is what of it has come."""
        self.tunnel = self._gather
        self._gather(early)

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
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

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
        if self.active is None and not self.waiting and self.reader.reading is None:
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
        elif self.reader.in_head:
            if silent > self.limits.header_timeout:
                self._time_out(f"the head was not complete within {self.limits.header_timeout} s")
        elif self.reader.reading is not None:
            if not self.read_paused and silent > self.limits.body_timeout:
                self._time_out(f"nothing came of the body for {self.limits.body_timeout} s")
        elif self.active is None and not self.waiting and silent > self.limits.keep_alive_timeout:
            self._close()

    # -- inside

    def _gather(self, data: bytes) -> None:
        """Keeps what came before the tunnel is open, and reads no more until it is."""
        self.early.append(data)
        if data:
            self.pause_reading()

    def _next(self) -> None:
        if self.active is not None or not self.waiting or self.transport.is_closing():
            return
        exchange = self.waiting.popleft()
        self.active = exchange
        if self.read_paused and exchange.received <= BUFFERED_BODY:
            self.resume_reading()
        self.server.application.handle(exchange)

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
        if self.waiting and self.waiting[-1] is self.reader.reading:
            self.waiting.pop()
        if self.waiting or (self.active is not None and self.active is not self.reader.reading):
            return  # its turn comes in `_finished`
        exchange = self.reader.reading or Exchange(self, monotonic(), [])
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
            if self.half_closes:
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

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
