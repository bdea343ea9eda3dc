"""``/nodes``: the platforms that share the store, each with its lanes."""

from __future__ import annotations

from collections import Counter
from time import time
from typing import Literal, get_args

from fastapi import APIRouter

from martlet.control.caller import Who
from martlet.control.control import Control
from martlet.control.parameters import Id, Platform, problems
from martlet.errors import Conflict, NotFound
from martlet.model import Node, Role

router = APIRouter(tags=["platform"])

NodeState = Literal["ready", "draining", "stopping", "away"]


class NodeView(Node):
    """A node, and its lanes together; ``age`` is in seconds.

    One that is ``draining`` gives its work to others, also after a restart, until it is resumed; one that is
    ``stopping`` will be gone soon; one that is ``away`` has no lane that answers. The control of the one that is
    ``leader`` does what is done once for all.
    """

    state: NodeState
    leader: bool
    age: float
    instances: int
    capacity: int
    cells: int


@router.get("/nodes", responses=problems())
async def list_nodes(platform: Platform) -> list[NodeView]:
    """Lists the nodes that are alive: this one, and those that the store has heard of within ten seconds."""
    return await _views(platform)


@router.put("/nodes/{id}/drain", responses=problems(NotFound, Conflict))
async def drain_node(platform: Platform, who: Who, id: Id) -> NodeView:  # noqa: A002 - the name people see
    """Lets other machines have the work of a node: it finishes what it runs, then lets go of its instances."""
    who.check_unlimited("drain nodes")
    await platform.drains.drain(id)
    return next(view for view in await _views(platform) if view.id == id)


@router.delete("/nodes/{id}/drain", status_code=204, responses=problems(NotFound))
async def resume_node(platform: Platform, who: Who, id: Id) -> None:  # noqa: A002
    """Lets a node that was drained have work again; it need not be alive."""
    who.check_unlimited("resume nodes")
    await platform.drains.resume(id)


async def states_of(platform: Control) -> dict[str, int]:
    """Returns how many nodes are in each state."""
    return {**dict.fromkeys(get_args(NodeState), 0), **Counter(node.state for node in await _views(platform))}


def state_of(node: Node, drained: bool) -> NodeState:
    """Returns what a node does."""
    if not any(lane.state == "ready" for lane in node.lanes):
        return "away"
    if node.stopping:
        return "stopping"
    return "draining" if drained else "ready"


async def _views(platform: Control) -> list[NodeView]:
    own = await platform.machine.node()
    nodes = dict(platform.view.nodes)
    if own.id in nodes:  # the supervisor knows, and has written it
        own = own.model_copy(update={"stopping": nodes[own.id].stopping})
    nodes[own.id] = own
    leader, drains = platform.leadership.leader, platform.view.drains
    return [
        _view(node, state_of(node, node.id in drains), leader)
        for node in sorted(nodes.values(), key=lambda node: (node.host, node.id))
    ]


def roles_of(node: Node) -> tuple[Role, ...]:
    """Returns all roles of a node; that it builds is said by what it builds."""
    return node.roles if node.builds is None else (*node.roles, Role.BUILDER)


def _view(node: Node, state: NodeState, leader: str | None) -> NodeView:
    return NodeView(
        **{**node.model_dump(), "roles": roles_of(node)},
        state=state,
        leader=node.id == leader,
        age=round(max(0.0, time() - node.started), 1),
        instances=sum(lane.instances for lane in node.lanes),
        capacity=sum(lane.capacity for lane in node.lanes),
        cells=sum(lane.cells for lane in node.lanes),
    )
