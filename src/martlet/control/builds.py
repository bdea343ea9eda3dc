"""``/builds``: deploys under way and done, and what they said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Response

from martlet.builder.lines import BuildLine
from martlet.control.caller import Caller, Who
from martlet.control.control import Control
from martlet.control.events import event_stream, events_response
from martlet.control.parameters import OF_FUNCTION, Id, Platform, problems
from martlet.errors import Conflict, NotFound
from martlet.model import FUNCTION_NAME, Build

router = APIRouter(tags=["builds"])
OF_CANCEL = problems(NotFound, Conflict)


@router.get("/builds", responses=OF_FUNCTION)
async def list_builds(
    platform: Platform,
    who: Who,
    function: Annotated[
        str | None, Query(pattern=FUNCTION_NAME, description="Only those of this function.")
    ] = None,
) -> list[Build]:
    """Lists the builds that are remembered, newest first."""
    return [build for build in await platform.builds.recent(function) if who.sees(build.function)]


@router.get("/builds/{id}", responses=OF_FUNCTION)
async def get_build(platform: Platform, who: Who, id: Id) -> Build:  # noqa: A002 - the name people see
    """Describes one build."""
    return await _find(platform, who, id)


@router.get(
    "/builds/{id}/logs",
    response_class=Response,
    responses=OF_FUNCTION | events_response(BuildLine, "What the build says, until it has ended."),
)
async def follow_build(platform: Platform, who: Who, id: Id) -> Response:  # noqa: A002
    """Sends the lines of a build's log as events, and those to come until it has ended."""
    return event_stream(_lines(platform, (await _find(platform, who, id)).id))


@router.delete("/builds/{id}", responses=OF_CANCEL)
async def cancel_build(platform: Platform, who: Who, id: Id) -> Build:  # noqa: A002
    """Cancels a build that is queued or under way; what served before still does."""
    build = await _find(platform, who, id)
    if platform.builds.is_running(id) or build.finished is not None:
        return await platform.builds.cancel(id)
    return await platform.elsewhere.cancel(id)


async def _lines(platform: Control, build_id: str) -> AsyncIterator[BuildLine]:
    """Yields what a build says, whichever machine runs it, and also where another takes it up meanwhile."""
    seen: list[BuildLine] = []
    if platform.builds.has_log(build_id):
        async for line in platform.builds.follow(build_id):
            seen.append(line)
            yield line
        if platform.builds.has_log(build_id):
            return
    async for line in platform.elsewhere.follow(build_id, seen):
        yield line


async def _find(platform: Control, who: Caller, build_id: str) -> Build:
    build = await platform.builds.find(build_id)
    if not who.sees(build.function):
        raise NotFound(f"there is no build {build_id!r}")
    return build
