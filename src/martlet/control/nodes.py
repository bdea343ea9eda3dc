"""``/nodes``: what owns instances. Each lane of this machine is one."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from martlet.control.parameters import Platform, problems
from martlet.model import Frozen

router = APIRouter(tags=["platform"])


class NodeView(Frozen):
    """A node: how many instances it has and may have, and how many cells stand ready.

    One that is ``away`` does not answer: it is being started anew.
    """

    name: str
    state: Literal["ready", "away"]
    instances: int
    capacity: int
    cells: int


@router.get("/nodes", responses=problems())
async def list_nodes(platform: Platform) -> list[NodeView]:
    """Lists the nodes."""
    return [
        NodeView(
            name=name,
            state="away" if said is None else "ready",
            instances=(said or {}).get("instances", 0),
            capacity=(said or {}).get("capacity", 0),
            cells=(said or {}).get("cells", 0),
        )
        for name, said in (await platform.lanes.health()).items()
    ]
