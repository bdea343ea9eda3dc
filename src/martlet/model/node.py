"""Machines of a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from martlet.model.base import Frozen
from martlet.model.config import ExecutionMode
from martlet.peer_address import PeerAddressText


class Role(StrEnum):
    """What a platform does: takes requests, runs instances, manages, builds. One that does all needs no other."""

    GATEWAY = "gateway"
    NODE = "node"
    CONTROL = "control"
    BUILDER = "builder"


class NodeLane(Frozen):
    """A lane of a node: how many instances it has and may have, and how many cells stand ready.

    One that is ``away`` does not answer: it is being started anew.
    """

    name: str
    state: Literal["ready", "away"]
    instances: int = 0
    capacity: int = 0
    cells: int = 0


class Node(Frozen):
    """A platform with all its lanes, as it tells the others.

    ``id`` is that of its data folder, ``address`` where it takes requests, if it does, ``peer`` where the other
    machines reach it, if they do. ``memory`` is the machine's, ``load`` its processes that ran or wanted to in the
    last minute, for each of its ``cores``; ``memory_free`` and ``cpu_free`` are what no instance was promised.
    ``warm`` has the instances of each revision, and how many more requests they take now; ``calls`` how many requests
    at once ran or waited lately, and ``forwarded`` how many of those came to other machines, which run functions too,
    by these. ``asked`` has how many requests per second were counted here against limits that hold for all machines
    together, by the number of the limit; ``divided`` is the store revision of the last division of ``max_instances``
    that it goes by. ``started`` is when it joined. One that is ``stopping`` finishes what it runs, and takes nothing
    from other machines. ``builds`` names the runtimes that it can build; None: it does not build.
    """

    id: str
    host: str
    address: str | None
    roles: tuple[Role, ...] = tuple(Role)
    version: str
    rungs: tuple[ExecutionMode, ...]
    runtimes: tuple[str, ...]
    cores: int
    memory: int
    load: float
    lanes: tuple[NodeLane, ...]
    started: float
    peer: PeerAddressText | None = None
    memory_free: int = 0
    cpu_free: int = 0
    warm: dict[str, tuple[int, int]] = Field({})
    calls: dict[str, float] = Field({})
    forwarded: dict[str, dict[str, float]] = Field({})
    asked: dict[str, float] = Field({})
    divided: int = 0
    stopping: bool = False
    builds: tuple[str, ...] | None = None


class Drain(Frozen):
    """Somebody wants a node to hold nothing, since then and until it is resumed, whether or not it runs meanwhile."""

    node: str
    since: float
