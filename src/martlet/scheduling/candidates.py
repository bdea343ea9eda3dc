"""The nodes that the store knows, as placement sees them."""

from __future__ import annotations

from collections.abc import Collection

from martlet.model import Node, Revision
from martlet.scheduling.placement import Candidate, Need

NOWHERE = "no machine of the cluster that runs such functions has room; see `martlet nodes`"
"""What a request is told for which there is no node."""


def need_of(revision: Revision) -> Need:
    """Returns what an instance of a revision takes."""
    config = revision.config
    return Need(revision.id, config.execution_mode, config.runtime, config.memory, config.cpu_limit or 0)


def candidates(nodes: Collection[Node], revision: Revision) -> list[Candidate]:
    """Returns the nodes for a revision.

    Where there are ``max_instances`` of it already, all that have some count as warm, however busy: its requests wait
    there, and no other node starts one more.
    """
    warm = {node.id: node.warm.get(revision.id, (0, 0)) for node in nodes}
    complete = sum(held for held, _ in warm.values()) >= revision.config.max_instances
    return [_candidate(node, *warm[node.id], complete) for node in nodes]


def _candidate(node: Node, held: int, free: int, complete: bool) -> Candidate:
    lanes = [lane for lane in node.lanes if lane.state == "ready"]
    return Candidate(
        name=node.id,
        zone=node.host,
        rungs=frozenset(map(str, node.rungs)),
        runtimes=frozenset(node.runtimes),
        room=sum(lane.capacity - lane.instances for lane in lanes),
        memory=node.memory_free,
        cpu=node.cpu_free,
        load=node.load,
        warm=max(free, 1) if held and complete else free,
    )
