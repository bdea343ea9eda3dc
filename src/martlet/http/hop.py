"""Connections to one process behind the gateway: control, another lane, or a lane of another machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from martlet.errors import MartletError, Overloaded, Unavailable
from martlet.http.exchange import Exchange, Header, status_line
from martlet.http.refusal import MARK, refusal
from martlet.http.upstream import HOP_BY_HOP, Upstream

MAX_CONNECTIONS = 512
MAX_WAITING = 4096
NEVER_SENT = b"x-martlet-"
KEPT_BODY = 1024 * 1024
"""Bytes of a request body that are kept until the answer begins, where it may be sent elsewhere."""
CONNECT_TIMEOUT = 3.0
"""Seconds a machine may take to take a connection, and to prove who it is."""
IDLE_SECONDS = 30.0
"""Seconds for which a connection is kept that carries nothing."""
KEPT_SECONDS = 10 * IDLE_SECONDS
"""Seconds for which the other side keeps it, at least. This side has to be the one that closes it, because it knows
that nothing is on its way: were the other the first, it might close it on a request, which would be lost."""
SILENCE = 10.0
"""Seconds after which a machine that answers no packet is taken for dead."""

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.Protocol)
Connect = Callable[[Callable[[], AnyProtocol]], Awaitable[tuple[Any, AnyProtocol]]]
"""Makes a connection for what the factory makes. Raises OSError."""


def over_unix(path: Path) -> Connect[HopConnection]:
    """Connects to a unix socket."""

    async def connect(factory: Callable[[], HopConnection]) -> tuple[Any, HopConnection]:
        return await asyncio.get_running_loop().create_unix_connection(factory, str(path))

    return connect


def over_tls(host: str, port: int, name: str, context: ssl.SSLContext) -> Connect[HopConnection]:
    """Connects to another machine, which must prove that it is ``name``.

    A machine that is gone without a word, power or network lost, ends its connections within `SILENCE`.
    """

    async def connect(factory: Callable[[], HopConnection]) -> tuple[Any, HopConnection]:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            transport, connection = await asyncio.get_running_loop().create_connection(
                factory, host, port, ssl=context, server_hostname=name
            )
        notice_silence(transport.get_extra_info("socket"))
        return transport, connection

    return connect


def notice_silence(connection: socket.socket) -> None:
    """Lets the kernel end a TCP connection whose other side has not answered for `SILENCE`."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE * 1000))


class Hop:
    """Sends exchanges to one process over kept connections and passes the responses through.

    Args:
        connect: how to reach it.
        name: what an error calls it.
        on_unreachable: gets the exchanges that no connection could be made for, none of which has been sent; without
            it they are answered 503.
        on_refused: gets an exchange that was not begun, for lack of room, as it was before it was sent, and the error;
            without it the refusal is the answer.
        on_lost: answers an exchange that it broke off; without it that is answered 503.
    """

    def __init__(
        self,
        connect: Connect[HopConnection],
        name: str,
        on_unreachable: Callable[[list[Exchange]], None] | None = None,
        on_lost: Callable[[Exchange], None] | None = None,
        on_refused: Callable[[Exchange, MartletError], None] | None = None,
    ) -> None:
        self.name = name
        self._connect_to = connect
        self._on_unreachable = on_unreachable
        self._on_lost = on_lost
        self.on_refused = on_refused
        self._connections: set[HopConnection] = set()
        self._idle: list[HopConnection] = []  # those that were used last come last
        self._tidying: asyncio.TimerHandle | None = None
        self._open = 0
        self._closing = False
        self._waiting: deque[tuple[Exchange, bytes, bytes]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange, head: bytes, last: bytes = b"") -> None:
        """Sends a request, as `Upstream.send` does. Never raises: what fails is answered as a problem."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                connection.send(exchange, head, last)
                return
        if len(self._waiting) >= MAX_WAITING:
            exchange.problem(Overloaded(f"too many requests wait for {self.name}"))
            return
        self._waiting.append((exchange, head, last))
        if self._open < MAX_CONNECTIONS:
            self._open += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Closes the idle connections, and the others when they have nothing more to carry."""
        self._closing = True
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        self._close_idle()

    def cut(self) -> None:
        """Closes all connections: what is under way is broken off."""
        for connection in tuple(self._connections):
            connection.close()

    @property
    def busy(self) -> bool:
        """Whether it carries anything."""
        return len(self._connections) > len(self._idle)

    async def answers(self) -> bool:
        """Whether a connection can be made now: over TLS only with a process that does something."""
        self._open += 1
        try:
            _, connection = await self._connect_to(lambda: HopConnection(self))
        except OSError:
            self._open -= 1
            return False
        connection.close()
        return True

    async def _connect(self) -> None:
        try:
            _, connection = await self._connect_to(lambda: HopConnection(self))
        except OSError:
            self._open -= 1
            self._give_up()
            return
        if connection.closed:  # as soon as it was made, which `closed` was told
            self._give_up()
            return
        self._connections.add(connection)
        self.free(connection)

    def _give_up(self) -> None:
        """Lets go of what waits for a connection: the process is not there."""
        unsent = [exchange for exchange, _, _ in self._waiting if not exchange.gone]
        self._waiting.clear()
        if self._on_unreachable is not None:
            self._on_unreachable(unsent)
            return
        for exchange in unsent:
            fail(exchange, Unavailable(f"{self.name} is starting, or starting anew"))

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def free(self, connection: HopConnection) -> None:
        """A connection can take a request."""
        while self._waiting:
            exchange, head, last = self._waiting.popleft()
            if not exchange.gone:
                connection.send(exchange, head, last)
                return
        if self._closing:
            connection.close()
        else:
            connection.idle_since = monotonic()
            self._idle.append(connection)
            if self._tidying is None:
                self._tidying = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """Closes the connections that have been idle for long."""
        self._tidying = None
        old = monotonic() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= old:
            self._idle.pop(0).close()
        if self._idle:
            wait = self._idle[0].idle_since - old
            self._tidying = asyncio.get_running_loop().call_later(wait, self._tidy)

    def closed(self, connection: HopConnection) -> None:
        """A connection is gone."""
        self._open -= 1
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self, exchange: Exchange) -> None:
        """An exchange was broken off; it may have been carried out.

        Nothing more is sent over connections that stood idle meanwhile: of a machine that has fallen silent it is not
        known yet that they are dead, and what they were given would be lost, too.
        """
        self._close_idle()
        if self._on_lost is not None:
            self._on_lost(exchange)
        else:
            fail(exchange, Unavailable(f"{self.name} has broken off"))


class HopConnection(Upstream):
    """One connection of a hop."""

    def __init__(self, hop: Hop) -> None:
        super().__init__()
        self.hop = hop
        self.idle_since = 0.0
        self._refused = b""
        self._body: list[bytes] | None = None  # what was sent of it, while that may be wanted again
        self._body_size = 0

    def send(self, exchange: Exchange, head: bytes, last: bytes = b"") -> None:
        """See `Upstream.send`."""
        if self.hop.on_refused is not None:
            self._body, self._body_size = exchange.chunks, exchange.received
        super().send(exchange, head, last)

    def body(self, data: bytes) -> None:
        """See `Upstream.body`."""
        if self._body is not None:
            self._body_size += len(data)
            if self._body_size > KEPT_BODY:
                self._body = None
            else:
                self._body.append(data)
        super().body(data)

    def on_head(self, exchange: Exchange, status: int, headers: list[Header]) -> bytes | None:
        """Passes everything on but what speaks of this connection; keeps a refusal where it may run elsewhere."""
        lines = [status_line(status)]
        named = False
        for name, value in headers:
            if name.startswith(NEVER_SENT):
                if name == MARK and self._body is not None:
                    self._refused = value
                    return None
                continue
            named = named or name == b"x-request-id"
            lines.append(b"%b: %b\r\n" % (name, value))
        if not named:
            lines.append(b"x-request-id: %b\r\n" % exchange.request_id.encode())
        self._body = None
        return b"".join(lines)

    def on_end(self, exchange: Exchange, kept: bytes | None) -> None:
        """The connection is free, or used up."""
        body, self._body = self._body, None
        if self.closed:
            self.hop.closed(self)
        else:
            self.hop.free(self)
        if kept is not None and body is not None and self.hop.on_refused is not None and not exchange.gone:
            exchange.give_back(body)
            self.hop.on_refused(exchange, refusal(self._refused, kept))

    def on_client_gone(self, exchange: Exchange) -> None:
        """The other side hears of it by the connection's end."""
        self.exchange = None
        self.closed = True
        self.transport.abort()
        self.hop.closed(self)

    def on_lost(self, exchange: Exchange | None, why: str, *, cut: bool) -> None:
        """The process behind has ended, or cut the response."""
        self.hop.closed(self)
        if exchange is not None:
            self.hop.lost(exchange)


def passed_on(exchange: Exchange, target: bytes) -> bytes:
    """Returns the head of a request as it came, but to another target."""
    lines = [b"%b %b HTTP/1.1\r\n" % (exchange.method, target)]
    lines += [b"%b: %b\r\n" % header for header in exchange.headers if header[0] not in HOP_BY_HOP]
    return b"".join(lines)


def fail(exchange: Exchange, error: MartletError) -> None:
    """Answers an error, if there is anybody to answer."""
    if not exchange.gone:
        exchange.problem(error)
