"""``/functions/{name}/logs``: what a function has printed, over all lanes, in the order of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import httpx2
from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from martlet.control.caller import Who
from martlet.control.events import CONTENT_TYPE, event_stream
from martlet.control.functions import find
from martlet.control.lanes import Lanes
from martlet.control.parameters import OF_FUNCTION, Name, Platform, Responses
from martlet.model import LogLine

router = APIRouter(tags=["logs"])

LONGEST_TAIL = 10_000
SETTLE = 0.1
"""Seconds that lines wait for older ones of another lane."""
RECONNECT = 1.0
"""Seconds until a lane that went away is asked again."""

_LINES = TypeAdapter(list[LogLine])
_OF_LOGS: Responses = {
    200: {
        "description": "The lines, oldest first; with `follow` as events, without end.",
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/LogLine"}}
            },
            CONTENT_TYPE: {"schema": {"type": "string"}},
        },
    },
    **OF_FUNCTION,
}

Tail = Annotated[int, Query(ge=0, le=LONGEST_TAIL, description="How many lines of the past.")]
Follow = Annotated[bool, Query(description="Send lines as events, and those to come.")]
OfRequest = Annotated[str | None, Query(max_length=128, description="Only lines of this request.")]


@router.get("/functions/{name}/logs", response_class=Response, responses=_OF_LOGS)
async def read_logs(
    platform: Platform,
    who: Who,
    name: Name,
    tail: Tail = 100,
    follow: Follow = False,
    request_id: OfRequest = None,
) -> Response:
    """Returns the last lines that a function has printed."""
    who.check(name)
    find(platform, name)
    if follow:
        return event_stream(_wanted(followed(platform.lanes, name, tail), request_id))
    asked = tail if request_id is None else LONGEST_TAIL
    of_each = await asyncio.gather(
        *(platform.lanes.logs_of(lane, name, asked) for lane in platform.lanes.sockets)
    )
    if request_id is not None:
        of_each = [[line for line in lines if line.request_id == request_id] for lines in of_each]
    lines = in_order(of_each, tail)
    return Response(_LINES.dump_json(lines), media_type="application/json")


async def followed(lanes: Lanes, function: str, tail: int) -> AsyncIterator[LogLine]:
    """Yields the last ``tail`` lines of a function and then those to come, as all lanes have them."""
    past = await asyncio.gather(*(lanes.logs_of(lane, function, tail) for lane in lanes.sockets))
    for line in in_order(past, tail):
        yield line
    arrived: asyncio.Queue[LogLine] = asyncio.Queue(maxsize=LONGEST_TAIL)
    tasks = [
        asyncio.create_task(_follow(lanes, lane, function, lines[-1].time if lines else 0.0, arrived))
        for lane, lines in zip(lanes.sockets, past, strict=True)
    ]
    try:
        while True:
            first = await arrived.get()
            await asyncio.sleep(SETTLE)
            for line in sorted([first, *(arrived.get_nowait() for _ in range(arrived.qsize()))], key=_time):
                yield line
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(
    lanes: Lanes, lane: Path, function: str, since: float, arrived: asyncio.Queue[LogLine]
) -> None:
    """Puts the lines of one lane into the queue, also after it was started anew."""
    while True:
        try:
            async for line in lanes.follow(lane, function, LONGEST_TAIL, since):
                since = line.time
                await arrived.put(line)
        except httpx2.TransportError:
            pass
        await asyncio.sleep(RECONNECT)


async def _wanted(lines: AsyncIterator[LogLine], request_id: str | None) -> AsyncIterator[LogLine]:
    async for line in lines:
        if request_id is None or line.request_id == request_id:
            yield line


def in_order(of_each: list[list[LogLine]], tail: int) -> list[LogLine]:
    """Returns the last ``tail`` lines of all lanes, oldest first."""
    return sorted(chain(*of_each), key=_time)[-tail:] if tail else []


def _time(line: LogLine) -> float:
    return line.time
