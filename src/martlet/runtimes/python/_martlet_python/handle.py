"""The contract ``handle(request)``: a function, sync or async, whose result is the response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from . import logs, open_runtimes
from .blocking import Send
from .evented import Channel
from .failures import Failure, answer
from .http1 import Disconnected, Framing, Head
from .open_runtimes import Refused, Terms
from .request import Request
from .response import Response, at_once, encode_piece, respond

_NOTHING = object()


class SyncHandler:
    """Runs a function for the blocking server."""

    def __init__(self, function: Callable[[Request], Any], guarded: bool = False) -> None:
        self._function = function
        self._guarded = guarded

    def __call__(self, head: Head, body: bytes, send: Send) -> bool:
        """Answers one request; see `blocking.Answer`."""
        if self._guarded or head.open_runtimes:
            return self._on_terms(head, body, send)
        try:
            request = Request(head, body)
            result = self._function(request)
            if result is None:
                request.check_nothing_returned()
            data = at_once(head, result)
            if data is None:
                response = respond(result)
                if not isinstance(response.body, bytes):
                    return _stream(head, response, send)
                data = response.whole(head, response.body)
        except Disconnected:
            raise
        except BaseException as error:
            data = answer(error, head)
        logs.finish()
        send(data)
        return head.keep_alive

    def _on_terms(self, head: Head, body: bytes, send: Send) -> bool:
        """Answers a request that an Open Runtimes platform may have sent."""
        own = open_runtimes.own(head)
        if own is not None:
            send(own)
            return head.keep_alive
        terms = Terms(head)

        def stamp(data: bytes) -> None:
            send(terms.stamp(data))

        try:
            terms.check()
        except Refused as refused:
            stamp(open_runtimes.refusal(head, refused))
            return head.keep_alive
        return SyncHandler(terms.bound(self._function))(head, body, stamp)


def _stream(head: Head, response: Response, send: Send) -> bool:
    """Sends the pieces as they come. The first is waited for, so that what raises before it still becomes a 500."""
    pieces: Any = response.body
    if isinstance(pieces, AsyncIterator):
        raise TypeError("the handler returned an async generator: declare it with `async def`")
    framing: Framing | None = None
    try:
        first = next(pieces, _NOTHING)
        framing = response.framing(head, first)
        if first is not _NOTHING:
            send(framing.send(encode_piece(first), more=True))
        if head.method != "HEAD":
            for piece in pieces:
                send(framing.send(encode_piece(piece), more=True))
        logs.finish()
        send(framing.send(b"", more=False))
    except Disconnected:
        return False
    except BaseException as error:
        if framing is None or not framing.started:
            raise
        Failure.of(error).log()
        return False
    finally:
        _close(pieces)
    return framing.keep_alive


def _close(pieces: Any) -> None:
    """Lets a generator that was not read to its end run its ``finally``; a file is closed."""
    close = getattr(pieces, "close", None)
    if close is not None:
        try:
            close()
        except BaseException as error:
            Failure.of(error).log()


class AsyncHandler:
    """Runs a coroutine function or an async generator function for the evented server."""

    def __init__(self, function: Callable[[Request], Any], guarded: bool = False) -> None:
        self._function = function
        self._guarded = guarded

    async def __call__(self, head: Head, channel: Channel) -> bool:
        """Answers one request; see `evented.Answer`."""
        if self._guarded or head.open_runtimes:
            return await self._on_terms(head, channel)
        body = await channel.body()
        try:
            request = Request(head, body)
            result = self._function(request)
            if hasattr(result, "__await__"):
                result = await result
            if result is None:
                request.check_nothing_returned()
            data = at_once(head, result)
            if data is None:
                response = respond(result)
                if not isinstance(response.body, bytes):
                    return await _stream_async(head, response, channel)
                data = response.whole(head, response.body)
        except BaseException as error:
            if channel.cancelled(error):
                raise
            data = answer(error, head)
        logs.finish()
        await channel.send(data)
        return head.keep_alive

    async def _on_terms(self, head: Head, channel: Channel) -> bool:
        """As for the blocking server."""
        own = open_runtimes.own(head)
        if own is not None:
            await channel.send(own)
            return head.keep_alive
        terms = Terms(head)
        stamped: Any = open_runtimes.Stamped(channel, terms)
        try:
            terms.check()
        except Refused as refused:
            await stamped.send(open_runtimes.refusal(head, refused))
            return head.keep_alive
        return await AsyncHandler(terms.bound_async(self._function))(head, stamped)


async def _stream_async(head: Head, response: Response, channel: Channel) -> bool:
    """As `_stream`. Whoever produces the pieces is cancelled when the peer leaves, even while it waits."""
    pieces = _each(response.body)
    framing: Framing | None = None
    channel.cancel_when_gone()
    try:
        first = await anext(pieces, _NOTHING)
        framing = response.framing(head, first)
        if first is not _NOTHING:
            await channel.send(framing.send(encode_piece(first), more=True))
        if head.method != "HEAD":
            async for piece in pieces:
                await channel.send(framing.send(encode_piece(piece), more=True))
        logs.finish()
        await channel.send(framing.send(b"", more=False))
    except Disconnected:
        return False
    except BaseException as error:
        if channel.cancelled(error) or framing is None or not framing.started:
            raise
        Failure.of(error).log()
        return False
    finally:
        await _close_async(pieces)
    return framing.keep_alive


async def _each(pieces: Any) -> AsyncGenerator[Any, None]:
    """Iterates over what a handler returned, async or not, and closes it."""
    if hasattr(pieces, "__anext__"):
        try:
            async for piece in pieces:
                yield piece
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()
    else:
        try:
            for piece in pieces:
                yield piece
        finally:
            _close(pieces)


async def _close_async(pieces: AsyncGenerator[Any, None]) -> None:
    try:
        await pieces.aclose()
    except BaseException as error:
        Failure.of(error).log()
