"""The server side of HTTP/1.1: one listening socket, its connections, and the time they may take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from martlet.errors import MartletError
from martlet.http.connection import ServerConnection
from martlet.http.exchange import Exchange


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

    def turn_away(self) -> None:
        """Closes each connection after its next response: clients that have another address use that."""
        self.closing = True

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
