"""The server for code that awaits: one thread, one event loop, a task for each request."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from . import internal, logs
from .blocking import Connection
from .http1 import BadRequest, Disconnected, Head, Parser, problem

_ENOUGH_BYTES = 64 * 1024
"""Bytes received and not yet read from which on no more are taken from the socket."""


class Successor(Protocol):
    """The protocol that a connection speaks after an upgrade."""

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""

    def connection_lost(self) -> None:
        """The peer is gone."""

    def end(self) -> None:
        """The process is about to end."""


class Channel(asyncio.Protocol):
    """One connection: requests follow each other, each in a task of its own.

    Attributes:
        transport: where bytes are written.
    """

    transport: asyncio.Transport

    def __init__(self, server: Server, parser: Parser) -> None:
        self._server = server
        self._parser = parser
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._cancel_when_gone = False
        self._answered = False
        self._successor: Successor | None = None

    # -- for what answers requests

    @property
    def closed(self) -> bool:
        """Whether the peer is gone, or about to be cut off."""
        return self.transport.is_closing()

    async def piece(self) -> bytes:
        """Returns the next bytes of the request's body; empty ones are its end.

        Raises:
            BadRequest: it is malformed or too large.
            Disconnected: the peer went away before its end.
        """
        while (piece := self._parser.piece()) is None:
            if self.closed:
                raise Disconnected
            await self._more()
        return piece

    @property
    def trailers(self) -> list[bytes]:
        """The lines that came behind the body, once it has been read to its end."""
        return self._parser.trailers

    async def body(self) -> bytes:
        """Returns the whole body of the request; raises what `piece` raises."""
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def send(self, data: bytes) -> None:
        """Writes bytes, and waits while the peer takes them more slowly than they come.

        Raises:
            Disconnected: the peer is gone.
        """
        if self.closed:
            raise Disconnected
        self._answered = True
        self.transport.write(data)
        await self._writable.wait()

    async def gone(self, condition: Callable[[], bool]) -> None:
        """Waits until the peer is gone, or ``condition`` holds (say so with `wake`)."""
        while not (self.closed or condition()):
            await self._more()

    def wake(self) -> None:
        """Has whoever waits look again."""
        self._news.set()

    def cancel_when_gone(self) -> None:
        """Has the task of this request cancelled when the peer leaves."""
        self._cancel_when_gone = True

    def cancelled(self, error: BaseException) -> bool:
        """Whether an exception says that the peer left, and not that the user's code failed."""
        return isinstance(error, asyncio.CancelledError) and self.closed

    def become(self, successor: Successor) -> None:
        """Hands everything that arrives from now on to another protocol."""
        self._successor = successor
        self.transport.resume_reading()
        if rest := self._parser.rest():
            successor.data_received(rest)

    def end(self) -> None:
        """Makes this the last request of the connection."""
        if self._task is None:
            self.transport.close()
        elif self._successor is not None:
            self._successor.end()

    async def finished(self) -> None:
        """Waits until the request that runs is over."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # -- for the event loop

    def connection_made(self, transport: Any) -> None:
        """The connection is there; it may come with bytes that another server had received."""
        self.transport = transport
        self._server.channels.add(self)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived: of a new request, of the body of the one that runs, or of what came after an upgrade."""
        if self._successor is not None:
            self._successor.data_received(data)
            return
        self._parser.feed(data)
        if self._task is None:
            self._next()
            return
        if self._parser.buffered > _ENOUGH_BYTES:
            self.transport.pause_reading()
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        """The peer is gone, or the connection was closed here."""
        self._server.channels.discard(self)
        self._news.set()
        self._writable.set()
        if self._successor is not None:
            self._successor.connection_lost()
        elif self._cancel_when_gone and self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The peer takes bytes more slowly than they come."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It caught up."""
        self._writable.set()

    # -- for itself

    def _next(self) -> None:
        try:
            head = self._parser.head()
        except BadRequest as error:
            self._refuse(error)
        else:
            if head is not None:
                self._answered = False
                self._task = asyncio.get_running_loop().create_task(self._run(head))
            elif self._server.stopping:
                self.transport.close()

    async def _run(self, head: Head) -> None:
        keep = False
        try:
            keep = await self._answer(head)
            while keep and await self.piece():
                pass  # what nobody read of the body is in the way of the next request
        except BadRequest as error:
            if not self._answered:
                self._refuse(error)
        except Disconnected:
            pass
        finally:
            self._task = None
            self._cancel_when_gone = False
            if not keep:
                self.transport.close()
        if not self.closed and keep:
            self.transport.resume_reading()
            self._next()

    async def _answer(self, head: Head) -> bool:
        if head.target.startswith(internal.PREFIX):
            await self.body()
            await self.send(internal.answer(head))
            return head.keep_alive
        logs.begin(head)
        try:
            return await self._server.answer(head, self)
        finally:
            logs.end()

    def _refuse(self, error: BadRequest) -> None:
        self.transport.write(problem(error))
        self.transport.close()

    async def _more(self) -> None:
        self.transport.resume_reading()
        self._news.clear()
        await self._news.wait()


Answer = Callable[[Head, Channel], Awaitable[bool]]
"""Answers one request. Returns whether the connection may go on."""


class Server:
    """Serves one listener on the running event loop."""

    def __init__(self, answer: Answer, max_body: int) -> None:
        self.answer = answer
        self.channels: set[Channel] = set()
        self.stopping = False
        self._max_body = max_body

    async def run(self, listener: socket.socket, first: Connection | None) -> None:
        """Serves until SIGTERM; requests that run then are finished.

        Args:
            listener: where connections come from.
            first: a connection that is open already.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        acceptor = await loop.create_server(lambda: Channel(self, Parser(self._max_body)), sock=listener)
        if first is not None:
            parser = first.parser
            await loop.connect_accepted_socket(lambda: Channel(self, parser), first.socket)
        await stop.wait()
        self.stopping = True
        acceptor.close()
        for channel in list(self.channels):
            channel.end()
        for channel in list(self.channels):
            await channel.finished()
