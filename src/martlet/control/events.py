"""Server-sent events: what happens, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi.responses import StreamingResponse

from martlet.control.parameters import Responses
from martlet.model import Frozen

QUIET = 15.0
"""Seconds without an event after which a comment is sent, so that nobody takes the stream for dead."""
CONTENT_TYPE = "text/event-stream"


class Aside(Frozen):
    """What is said about a stream rather than in it: its event is named after the class."""


def event_stream(things: AsyncIterator[Frozen]) -> StreamingResponse:
    """Returns the answer that sends each of ``things`` as the JSON of an event, until there are no more."""
    return StreamingResponse(_events(things), media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})


async def _events(things: AsyncIterator[Frozen]) -> AsyncIterator[bytes]:
    following = asyncio.ensure_future(anext(things))
    try:
        while True:
            await asyncio.wait([following], timeout=QUIET)
            if not following.done():
                yield b": nothing new\n\n"
                continue
            try:
                thing = following.result()
            except StopAsyncIteration:
                return
            named = f"event: {type(thing).__name__.lower()}\n" if isinstance(thing, Aside) else ""
            yield f"{named}data: {thing.model_dump_json()}\n\n".encode()
            following = asyncio.ensure_future(anext(things))
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await following


def events_response(model: type[Frozen], description: str) -> Responses:
    """Returns how OpenAPI is told of a stream of ``model``."""
    said = f"{description} Each event's data is the JSON of a `{model.__name__}`."
    return {200: {"description": said, "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}}
