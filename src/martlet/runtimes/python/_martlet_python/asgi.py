"""The contract ``app(scope, receive, send)``: an ASGI 3 application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from . import logs
from .evented import Channel
from .failures import Failure, answer
from .http1 import BadRequest, Disconnected, Framing, Head, decode_path, header_block
from .websocket import Session, wants_websocket

Event = dict[str, Any]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]
]

VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Application:
    """Runs an ASGI application for the evented server.

    Args:
        app: the user's.
        state: what its lifespan left for requests; each gets a copy.
        max_message: bytes a WebSocket message may have.
    """

    def __init__(self, app: App, state: dict[str, Any], max_message: int) -> None:
        self._app = app
        self._state = state
        self._max_message = max_message

    async def __call__(self, head: Head, channel: Channel) -> bool:
        """Answers one request; see `evented.Answer`."""
        if wants_websocket(head):
            return await self._converse(head, channel)
        exchange = Exchange(head, channel)
        try:
            await self._app(self._scope(head), exchange.receive, exchange.send)
            if not (exchange.complete or channel.closed):
                raise RuntimeError("the application returned before its response was complete")
        except BaseException as error:
            if exchange.malformed is not None:
                raise exchange.malformed from error
            if channel.closed and _because_of_disconnect(error):
                return False
            if not exchange.framing.started:
                refusal = answer(error, head)
                logs.finish()
                await channel.send(refusal)
                return head.keep_alive
            Failure.of(error).log()
        return exchange.complete and exchange.framing.keep_alive

    async def _converse(self, head: Head, channel: Channel) -> bool:
        session = Session(head, channel, Exchange(head, channel), self._max_message)
        if not await session.check():
            return False
        channel.become(session)
        scope = self._scope(head) | session.scope
        try:
            await self._app(scope, session.receive, session.send)
        except BaseException as error:
            if not (channel.closed and _because_of_disconnect(error)):
                await session.fail(error)
        else:
            await session.close()
        await session.settle()
        return False

    def _scope(self, head: Head) -> dict[str, Any]:
        fields = head.fields
        path, _, query = head.target.partition("?")
        prefix = fields.get("x-forwarded-prefix", "")
        scheme = fields.get("x-forwarded-proto", "http")
        host, _, port = fields.get("x-forwarded-host", fields.get("host", "")).rpartition(":")
        client = fields.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return {
            "type": "http",
            "asgi": VERSIONS,
            "http_version": f"1.{head.minor}",
            "method": head.method,
            "scheme": scheme,
            "path": decode_path(prefix + path),
            "raw_path": (prefix + path).encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": decode_path(prefix),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
            "client": (client, 0) if client else None,
            "server": (host, int(port)) if host and port.isdecimal() else None,
            "state": self._state.copy(),
        }


class Exchange:
    """The two callables of one HTTP request.

    Attributes:
        framing: of the response.
        complete: whether the application has sent all of the response.
        malformed: what was wrong with the body of the request, once that is known.
    """

    def __init__(self, head: Head, channel: Channel) -> None:
        self.framing = Framing(head)
        self.complete = False
        self.malformed: BadRequest | None = None
        self._channel = channel
        self._body_read = False

    async def receive(self) -> Event:
        """Gives the application the next piece of the body, and after it the news that the client left."""
        if not (self._body_read or self.complete):
            try:
                piece = await self._channel.piece()
            except BadRequest as error:
                self.malformed = error
            except Disconnected:
                pass
            else:
                self._body_read = not piece
                return {"type": "http.request", "body": piece, "more_body": bool(piece)}
            self._body_read = True
            return {"type": "http.disconnect"}
        await self._channel.gone(lambda: self.complete)
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        """Takes the next part of the response from the application.

        Raises:
            RuntimeError: the event may not come now.
            Disconnected: an OSError, as ASGI has it: the client left.
        """
        kind = event["type"]
        if kind == "http.response.start" and not self.framing.ready:
            fields, length = header_block(event.get("headers", ()))
            self.framing.start(event["status"], fields, length)
        elif kind == "http.response.body" and self.framing.ready and not self.complete:
            more = event.get("more_body", False)
            data = self.framing.send(bytes(event.get("body", b"")), more)
            if not more:
                self.complete = True
                self._channel.wake()
                logs.finish()
            await self._channel.send(data)
        else:
            raise RuntimeError(f"the application sent {kind!r} at a moment when it may not")


def _because_of_disconnect(error: BaseException | None) -> bool:
    """Whether an exception comes from the client's leaving; frameworks wrap ours in theirs."""
    while error is not None:
        if isinstance(error, Disconnected | asyncio.CancelledError):
            return True
        error = error.__cause__ or error.__context__
    return False
