"""``/nodes``: the platforms that share the store, each with its lanes."""

from __future__ import annotations

from time import time
from typing import Literal

from fastapi import APIRouter

from martlet.control.parameters import Platform, problems
from martlet.model import Node

router = APIRouter(tags=["platform"])


class NodeView(Node):
    """A node, and its lanes together. One that is ``away`` has no lane that answers; ``age`` is in seconds.

    The control of the one that is ``leader`` does what is done once for all.
    """

    state: Literal["ready", "away"]
    leader: bool
    age: float
    instances: int
    capacity: int
    cells: int


@router.get("/nodes", responses=problems())
async def list_nodes(platform: Platform) -> list[NodeView]:
    """Lists the nodes that are alive: this one, and those that the store has heard of within ten seconds."""
    own = await platform.machine.node()
    nodes = {**platform.view.nodes, own.id: own}
    leader = platform.leadership.leader
    return [_view(node, leader) for node in sorted(nodes.values(), key=lambda node: (node.host, node.id))]


def _view(node: Node, leader: str | None) -> NodeView:
    return NodeView(
        **node.model_dump(),
        state="ready" if any(lane.state == "ready" for lane in node.lanes) else "away",
        leader=node.id == leader,
        age=round(max(0.0, time() - node.started), 1),
        instances=sum(lane.instances for lane in node.lanes),
        capacity=sum(lane.capacity for lane in node.lanes),
        cells=sum(lane.cells for lane in node.lanes),
    )
