"""``/functions/{name}/scaling``: why a function has as many instances as it has."""

from __future__ import annotations

from fastapi import APIRouter

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_FUNCTION, Name, Platform
from martlet.model import Frozen, NodeScaling

router = APIRouter(tags=["instances"])


class FunctionScaling(Frozen):
    """The instances of a function on all nodes together, and what each node says of its own.

    Decisions are the latest of each node, newest first. Times are seconds since the epoch, windows seconds.
    """

    function: str
    instances: int
    min_instances: int
    max_instances: int
    nodes: list[NodeScaling]


@router.get("/functions/{name}/scaling", responses=OF_FUNCTION)
async def function_scaling(platform: Platform, who: Who, name: Name) -> FunctionScaling:
    """Says why a function has as many instances as it has: what was decided lately, and learned of its calls."""
    who.check(name)
    config = platform.view.revisions[name, find(platform, name).latest].config
    nodes = await platform.lanes.scaling(name)
    return FunctionScaling(
        function=name,
        instances=sum(node.instances for node in nodes),
        min_instances=config.min_instances,
        max_instances=config.max_instances,
        nodes=nodes,
    )
