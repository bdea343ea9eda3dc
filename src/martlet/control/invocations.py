"""``/functions/{name}/invocations``: the latest runs of a function. ``/invocations/{id}``: an asynchronous one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_MACHINES, Id, Name, Platform, problems
from martlet.errors import FunctionNotFound, NotFound
from martlet.model import Invocation, InvocationState, InvocationView

router = APIRouter(tags=["invocations"])

Limit = Annotated[int, Query(ge=1, le=10_000, description="How many at most.")]


@router.get("/functions/{name}/invocations", responses=OF_MACHINES)
async def list_invocations(
    platform: Platform, who: Who, response: Response, name: Name, limit: Limit = 100
) -> list[InvocationView]:
    """Lists the latest finished invocations of a function, newest first."""
    who.check(name)
    find(platform, name)
    found = await platform.machines.invocations(name, limit)
    response.headers.update(found.headers)
    return found.things


@router.get("/invocations/{id}", responses=problems(NotFound))
async def get_invocation(platform: Platform, who: Who, id: Id) -> Invocation:  # noqa: A002 - the name people see
    """Describes an asynchronous invocation, with its answer once it has one."""
    invocation = await platform.invocations.find(id)
    if invocation is None or not who.sees(invocation.function):
        raise NotFound(f"there is no asynchronous invocation {id!r}, or its outcome is not kept any more")
    function = platform.view.functions.get(invocation.function)
    waits = invocation.state is InvocationState.WAITING
    if waits and (function is None or function.created > invocation.accepted):
        deleted = FunctionNotFound(f"the function {invocation.function!r} was deleted").problem(id)
        return invocation.model_copy(update={"state": InvocationState.FAILED, "error": deleted})
    return invocation
