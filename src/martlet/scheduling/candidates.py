"""The nodes that the store knows, as placement sees them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from martlet.model import Division, Node, Revision
from martlet.scheduling.placement import Candidate, Need
from martlet.scheduling.shares import Shares, shares_of

_IDLE: dict[str, tuple[Node, Candidate]] = {}
"""What each node is for revisions that it has no instance of, which are nearly all: worked out once each time it says
something, and not for each revision. Nodes do not change; by their id, the last of each."""
_IDLE_KEPT = 10_000

NOWHERE = "no machine of the cluster that runs such functions has room; see `martlet nodes`"
"""What a request is told for which there is no node."""


def need_of(revision: Revision) -> Need:
    """Returns what an instance of a revision takes."""
    config = revision.config
    return Need(revision.id, config.execution_mode, config.runtime, config.memory, config.cpu_limit or 0)


def described(
    nodes: Collection[Node], revision: Revision, withdrawing: Collection[str] = ()
) -> list[Candidate]:
    """Returns the nodes for a revision as they describe themselves.

    Args:
        nodes: those that live.
        revision: what is to run.
        withdrawing: the ids of those that give their work to others.
    """
    name = revision.id
    found = []
    for node in nodes:
        candidate = _idle(node)
        if name in node.warm or node.id in withdrawing:
            held, free = node.warm.get(name, (0, 0))
            candidate = replace(candidate, held=held, warm=free, withdraws=node.id in withdrawing)
        found.append(candidate)
    return found


def candidates(
    nodes: Collection[Node],
    revision: Revision,
    withdrawing: Collection[str] = (),
    shares: Shares | None = None,
) -> list[Candidate]:
    """Returns the nodes for a request for a revision.

    Where there may be no further instance of it, all that have some count as warm, however busy: its requests wait
    there, and no other node starts one more. Instances of nodes that withdraw do not count: they go.

    Args:
        nodes: those that live.
        revision: what is to run.
        withdrawing: the ids of those that give their work to others.
        shares: how many instances each of the others may have; None: as many as it has room for.
    """
    found = described(nodes, revision, withdrawing)
    if shares is not None:
        found = [
            each
            if each.withdraws
            else replace(each, room=min(each.room, shares.get(each.name, 0) - each.held))
            for each in found
            if each.withdraws or each.held or each.name in shares  # of a thousand machines a few
        ]
    held = sum(each.held for each in found if not each.withdraws)
    need = need_of(revision)
    growing = any(each.offers(need) and each.fits(need) for each in found if not each.withdraws)
    if held < revision.config.max_instances and (growing or not held):
        return found
    return [replace(each, warm=max(each.warm, 1)) for each in found if each.held]


def shares_among(
    nodes: Collection[Node],
    revision: Revision,
    record: Division | None,
    withdrawing: Collection[str] = (),
) -> dict[str, int]:
    """Returns how many instances of a revision each node may have. Nodes that withdraw are as good as gone.

    Args:
        nodes: those that are alive and run functions.
        revision: whose instances.
        record: how the store says that they are divided, if it does.
        withdrawing: the ids of those that give their work to others.
    """
    need = need_of(revision)
    division = record.shares if record is not None and record.created == revision.created else None
    staying = [each for each in described(nodes, revision, withdrawing) if not each.withdraws]
    return shares_of(need, revision.config.max_instances, staying, division)


def _idle(node: Node) -> Candidate:
    """Returns what a node is for a revision that it has no instance of."""
    known = _IDLE.get(node.id)
    if known is None or known[0] is not node:
        if len(_IDLE) >= _IDLE_KEPT:  # most of them left long ago
            _IDLE.clear()
        known = _IDLE[node.id] = node, _candidate(node)
    return known[1]


def _candidate(node: Node) -> Candidate:
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
    )
