"""Connections to one process of the platform behind the gateway: control, or another lane."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from martlet.errors import MartletError, Overloaded, Unavailable
from martlet.http.exchange import Exchange, Header, status_line
from martlet.http.upstream import Upstream

MAX_CONNECTIONS = 512
MAX_WAITING = 4096
NEVER_SENT = b"x-martlet-"


class Hop:
    """Sends exchanges to a unix socket over kept connections and passes the responses through.

    Args:
        path: the socket.
        name: what an error calls the process behind it.
        on_unreachable: gets the exchanges that no connection could be made for, none of which has been sent; without
            it they are answered 503.
    """

    def __init__(
        self, path: Path, name: str, on_unreachable: Callable[[list[Exchange]], None] | None = None
    ) -> None:
        self.path = path
        self.name = name
        self._on_unreachable = on_unreachable
        self._idle: list[HopConnection] = []
        self._open = 0
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
        """Closes the idle connections."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: HopConnection(self), str(self.path)
            )
        except OSError:
            self._open -= 1
            unsent = [exchange for exchange, _, _ in self._waiting if not exchange.gone]
            self._waiting.clear()
            if self._on_unreachable is not None:
                self._on_unreachable(unsent)
                return
            for exchange in unsent:
                fail(exchange, Unavailable(f"{self.name} is starting, or starting anew"))
            return
        self.free(connection)

    def free(self, connection: HopConnection) -> None:
        """A connection can take a request."""
        while self._waiting:
            exchange, head, last = self._waiting.popleft()
            if not exchange.gone:
                connection.send(exchange, head, last)
                return
        self._idle.append(connection)

    def closed(self, connection: HopConnection) -> None:
        """A connection is gone."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)


class HopConnection(Upstream):
    """One connection of a hop."""

    def __init__(self, hop: Hop) -> None:
        super().__init__()
        self.hop = hop

    def on_head(self, exchange: Exchange, status: int, headers: list[Header]) -> bytes:
        """Passes everything on but what speaks of this connection."""
        lines = [status_line(status)]
        named = False
        for name, value in headers:
            if name.startswith(NEVER_SENT):
                continue
            named = named or name == b"x-request-id"
            lines.append(b"%b: %b\r\n" % (name, value))
        if not named:
            lines.append(b"x-request-id: %b\r\n" % exchange.request_id.encode())
        return b"".join(lines)

    def on_end(self, exchange: Exchange, kept: bytes | None) -> None:
        """The connection is free, or used up."""
        if self.closed:
            self.hop.closed(self)
        else:
            self.hop.free(self)

    def on_client_gone(self, exchange: Exchange) -> None:
        """The other side hears of it by the connection's end."""
        self.exchange = None
        self.closed = True
        self.transport.abort()
        self.hop.closed(self)

    def on_lost(self, exchange: Exchange | None, why: str) -> None:
        """The process behind has ended, or cut the response."""
        self.hop.closed(self)
        if exchange is not None:
            fail(exchange, Unavailable(f"{self.hop.name} has broken off"))


def fail(exchange: Exchange, error: MartletError) -> None:
    """Answers an error, if there is anybody to answer."""
    if not exchange.gone:
        exchange.problem(error)
