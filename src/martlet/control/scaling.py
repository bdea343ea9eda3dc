"""``/functions/{name}/scaling``: why a function has as many instances as it has."""

from __future__ import annotations

from fastapi import APIRouter, Response

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_MACHINES, Name, Platform
from martlet.model import Division, Frozen, NodeScaling

router = APIRouter(tags=["instances"])


class FunctionScaling(Frozen):
    """The instances of a function on all nodes together, and what each node says of its own.

    Decisions are the latest of each node, newest first. Times are seconds since the epoch, windows seconds.
    ``division`` is what the leader decided last for all nodes, where there are several and the function is in use.
    """

    function: str
    instances: int
    min_instances: int
    max_instances: int
    nodes: list[NodeScaling]
    division: Division | None = None


@router.get("/functions/{name}/scaling", responses=OF_MACHINES)
async def function_scaling(platform: Platform, who: Who, response: Response, name: Name) -> FunctionScaling:
    """Says why a function has as many instances as it has: what was decided lately, and learned of its calls."""
    who.check(name)
    latest = find(platform, name).latest
    config = platform.view.revisions[name, latest].config
    found = await platform.machines.scaling(name)
    response.headers.update(found.headers)
    return FunctionScaling(
        function=name,
        instances=sum(node.instances for node in found.things),
        min_instances=config.min_instances,
        max_instances=config.max_instances,
        nodes=found.things,
        division=platform.view.divisions.get((name, latest)),
    )
