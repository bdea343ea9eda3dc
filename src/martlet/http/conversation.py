"""A connection to one process that is asked one thing after the other, and then may carry something else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self, cast

import httptools
import orjson

from martlet.http.fetch import Answer, FetchError, head_of
from martlet.http.unix import connected


class Conversation(asyncio.Protocol):
    """See the module. Begin one with `begin`.

    Attributes:
        open: whether something can be asked: the other end wants to go on.
    """

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._answer = Answer()
        self._at_most = 0
        self._answered: asyncio.Future[None] | None = None

    @classmethod
    async def begin(cls, socket: str | Path) -> Self:
        """Connects to a unix stream socket. Raises `FetchError`."""
        try:
            connection = await connected(socket)
            _, conversation = await asyncio.get_running_loop().create_unix_connection(cls, sock=connection)
        except OSError as error:
            raise FetchError(f"{socket}: {error}") from error
        return conversation

    async def ask(
        self, method: str, target: str, document: Any = None, *, timeout: float, at_most: int
    ) -> tuple[int, bytes]:
        """Sends a request with an optional JSON body; the arguments and the answer are those of `fetch`.

        Raises:
            FetchError: no answer, or one that is not HTTP or too long, or none in time. The connection is closed then.
        """
        body = b"" if document is None else orjson.dumps(document)
        loop = asyncio.get_running_loop()
        self._answer, self._at_most, self._answered = Answer(), at_most, loop.create_future()
        patience = loop.call_later(timeout, self._fail, TimeoutError())
        self._transport.write(head_of(method, target, len(body), "application/json") + b"\r\n" + body)
        try:
            await self._answered
        except (OSError, TimeoutError, httptools.HttpParserError) as error:
            raise FetchError(f"{method} {target}: {error or type(error).__name__}") from error
        except BaseException:
            self.close()  # what comes yet would be taken for the next answer
            raise
        finally:
            patience.cancel()
            self._answered = None
        self.open = self.open and self._answer.keeps_alive
        if not self.open:
            self.close()
        return self._answer.status, bytes(self._answer.body)

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Lets the connection, which is open, carry what ``protocol`` does with it."""
        self.open = False
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)

    def close(self) -> None:
        """Ends it; harmless where it has ended. What was handed over stays."""
        if self._transport is not None and self._transport.get_protocol() is self:
            self.open = False
            self._transport.abort()

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """A piece of the answer; what nobody has asked for ends the conversation."""
        if self._answered is None or self._answered.done():
            self.close()
            return
        try:
            self._answer.feed(data)
        except httptools.HttpParserError as error:
            self._fail(error)
            return
        if self._answer.received > self._at_most:
            self._fail(OSError(f"the answer is over {self._at_most} bytes"))
        elif self._answer.complete:
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone, or has had enough."""
        self.open = False
        self._fail(exc or OSError("the connection was closed before the answer was complete"))

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
            self.close()
