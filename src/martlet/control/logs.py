"""``/functions/{name}/logs``: what a function has printed, on all machines, in the order of time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from martlet.control.caller import Who
from martlet.control.events import CONTENT_TYPE, event_stream
from martlet.control.following import Missing, followed, in_order
from martlet.control.functions import find
from martlet.control.parameters import OF_MACHINES, Name, Platform, Responses
from martlet.model import LogLine

router = APIRouter(tags=["logs"])

LONGEST_TAIL = 10_000

_LINES = TypeAdapter(list[LogLine])
_OF_LOGS: Responses = {
    **OF_MACHINES,
    200: {
        **OF_MACHINES[200],
        "description": "The lines, oldest first; with `follow` as events, without end. Those named `missing` have the "
        'machines whose lines are left out now, `{"missing": [ID]}`.',
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/LogLine"}}
            },
            CONTENT_TYPE: {"schema": {"type": "string"}},
        },
    },
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
    """Returns the last lines that a function has printed, on all machines."""
    who.check(name)
    find(platform, name)
    if follow:
        return event_stream(_wanted(followed(platform.machines, name, tail), request_id))
    found = await platform.machines.logs(name, tail if request_id is None else LONGEST_TAIL)
    of_each = [lines for _, lines in found.things]
    if request_id is not None:
        of_each = [[line for line in lines if line.request_id == request_id] for lines in of_each]
    lines = in_order(of_each, tail)
    return Response(_LINES.dump_json(lines), media_type="application/json", headers=found.headers)


async def _wanted(
    lines: AsyncIterator[LogLine | Missing], request_id: str | None
) -> AsyncIterator[LogLine | Missing]:
    async for line in lines:
        if request_id is None or isinstance(line, Missing) or line.request_id == request_id:
            yield line
