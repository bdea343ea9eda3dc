"""Nodes that are only said to be there: ``python -m bench.simulated HOST:PORT PREFIX COUNT`` keeps them in etcd.

Each has a lease and beats as a real one does (`Membership`), and says something else each time, as one under load does.
"""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count

import structlog

from bench.light import LightClient
from martlet import __version__
from martlet.control.membership import HEARTBEAT_SECONDS, Membership
from martlet.model import ExecutionMode, Node, NodeLane, Role
from martlet.peer_address import PeerAddress
from martlet.storage.etcd.keys import Keys
from martlet.storage.etcd.store import EtcdStore
from martlet.storage.registry import Registry
from martlet.store_address import EtcdAddress

HOLDS = 3
"""Functions that each node has an instance of."""


def function(number: int) -> str:
    """Returns the name of a function that is only said to be there."""
    return f"simulated-{number}"


def node(number: int, beat: int, nodes: int, divided: int) -> Node:
    """Returns what a node says at a beat.

    Args:
        number: which one.
        beat: how often it has said something.
        nodes: how many there are; as many functions are in use, each on `HOLDS` of them.
        divided: the store revision of the last division that it goes by.
    """
    held = [function((number + step) % nodes) for step in range(HOLDS)]
    return Node(
        id=f"{number:012x}",
        host=f"simulated-{number}",
        address=None,
        roles=(Role.NODE,),
        version=__version__,
        rungs=(ExecutionMode.PROCESS,),
        runtimes=("python", *(f"runtime-{each}" for each in range(19))),
        cores=8,
        memory=32 << 30,
        load=round(random.uniform(0, 1), 1),
        lanes=tuple(
            NodeLane(name=f"lane-{n}", state="ready", instances=1, capacity=100, cells=4) for n in range(8)
        ),
        started=0.0,
        peer=PeerAddress("192.0.2.1", 8001),
        memory_free=random.randrange(8 << 30, 31 << 30),
        cpu_free=random.randrange(8000),
        warm={f"{name}@1": (1, random.randrange(2)) for name in held},
        calls={f"{name}@1": round(random.uniform(0.1, 1), 2) for name in held},
        divided=divided,
    )


async def keep(endpoint: str, prefix: str, nodes: int) -> None:
    """Keeps so many nodes until it is cancelled; says when all have joined."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    address = EtcdAddress.parse(f"etcd://{endpoint}{prefix}")
    registry = Registry(EtcdStore(LightClient(address), Keys(address.prefix)))
    members = []
    joined = asyncio.Semaphore(0)

    def member(number: int) -> Membership:
        beats = count()

        async def describe() -> Node:
            beat = next(beats)
            if beat == 1:
                joined.release()
            # It knows every division there can be: what takes it long to hear of one is not what is measured.
            return node(number, beat, nodes, 1 << 60)

        return Membership(registry, describe)

    for number in range(nodes):
        members.append(member(number))
        members[-1].open()
        await asyncio.sleep(HEARTBEAT_SECONDS / nodes)  # they did not start all at once
    for _ in range(nodes):
        await joined.acquire()
    print("joined", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(keep(sys.argv[1], sys.argv[2], int(sys.argv[3])))
