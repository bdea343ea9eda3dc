"""``/functions/{name}/revisions``: what a function was before, and the way back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from martlet.control.caller import Who
from martlet.control.control import Control
from martlet.control.functions import FunctionView, find, view
from martlet.control.parameters import OF_CHANGE, OF_FUNCTION, Name, Number, Platform
from martlet.errors import FunctionNotFound
from martlet.model import Digest, Frozen, FunctionConfig, Integer

router = APIRouter(tags=["revisions"])


class RevisionView(Frozen):
    """A revision; ``serving`` where it is the one that the function's name leads to."""

    id: str
    number: int
    serving: bool
    config: FunctionConfig
    code: Digest
    dependencies: Digest | None
    created: float


class Rollback(Frozen):
    """Which revision is to serve."""

    revision: Integer = Field(ge=1, le=10**9)


@router.get("/functions/{name}/revisions", responses=OF_FUNCTION)
async def list_revisions(platform: Platform, who: Who, name: Name) -> list[RevisionView]:
    """Lists the revisions of a function, newest first."""
    who.check(name)
    find(platform, name)
    numbers = sorted(
        (number for function, number in platform.view.revisions if function == name), reverse=True
    )
    return [_view(platform, name, number) for number in numbers]


@router.get("/functions/{name}/revisions/{number}", responses=OF_FUNCTION)
async def get_revision(platform: Platform, who: Who, name: Name, number: Number) -> RevisionView:
    """Describes one revision."""
    who.check(name)
    find(platform, name)
    if (name, number) not in platform.view.revisions:
        raise FunctionNotFound(f"there is no revision '{name}@{number}'")
    return _view(platform, name, number)


@router.post("/functions/{name}/rollback", responses=OF_CHANGE)
async def roll_back(
    platform: Platform, who: Who, request: Request, name: Name, body: Rollback
) -> FunctionView:
    """Makes another revision the one that serves, once it has shown that it loads."""
    who.check(name)
    await platform.deployments.rollback(name, body.revision)
    return view(platform, find(platform, name), request)


def _view(platform: Control, name: str, number: int) -> RevisionView:
    revision = platform.view.revisions[name, number]
    return RevisionView(
        id=revision.id,
        number=number,
        serving=platform.view.functions[name].latest == number,
        config=revision.config,
        code=revision.code,
        dependencies=revision.dependencies,
        created=revision.created,
    )
