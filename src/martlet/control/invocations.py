"""``/functions/{name}/invocations``: the latest runs of a function."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_FUNCTION, Name, Platform
from martlet.model import InvocationView

router = APIRouter(tags=["invocations"])

Limit = Annotated[int, Query(ge=1, le=10_000, description="How many at most.")]


@router.get("/functions/{name}/invocations", responses=OF_FUNCTION)
async def list_invocations(
    platform: Platform, who: Who, name: Name, limit: Limit = 100
) -> list[InvocationView]:
    """Lists the latest finished invocations of a function, newest first."""
    who.check(name)
    find(platform, name)
    return await platform.lanes.invocations(name, limit)
