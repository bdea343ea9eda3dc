"""``/functions/{name}/dead-letters``: asynchronous invocations that were tried as often as may be."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_FUNCTION, Id, Name, Platform
from martlet.errors import NotFound
from martlet.model import DeadInvocation

router = APIRouter(tags=["invocations"])

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


@router.get("/functions/{name}/dead-letters", responses=OF_FUNCTION)
async def list_dead_letters(
    platform: Platform, who: Who, name: Name, limit: Limit = 100
) -> list[DeadInvocation]:
    """Lists the asynchronous invocations of a function that were given up, the oldest first."""
    who.check(name)
    find(platform, name)
    return await platform.invocations.dead(name, limit)


@router.post("/functions/{name}/dead-letters/{id}/retry", status_code=204, responses=OF_FUNCTION)
async def retry_dead_letter(platform: Platform, who: Who, name: Name, id: Id) -> None:  # noqa: A002 - the name people see
    """Runs an asynchronous invocation that was given up again, as if it were new."""
    who.check(name)
    find(platform, name)
    if not await platform.invocations.retry(name, id):
        raise _missing(name, id)


@router.delete("/functions/{name}/dead-letters/{id}", status_code=204, responses=OF_FUNCTION)
async def drop_dead_letter(platform: Platform, who: Who, name: Name, id: Id) -> None:  # noqa: A002
    """Deletes an asynchronous invocation that was given up."""
    who.check(name)
    find(platform, name)
    if not await platform.invocations.queue(name).drop(id):
        raise _missing(name, id)


def _missing(name: str, invocation: str) -> NotFound:
    return NotFound(f"{name!r} has no dead letter {invocation!r}")
