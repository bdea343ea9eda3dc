"""Which lane decides about a revision, which lane gets its next instance, and which node of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TypeVar

Place = TypeVar("Place", int, str)
"""A lane by its number, or a node by its name."""

HOMES = 3
"""Nodes that a revision is at home on: it has its instances there as long as they have room."""
BUSY_FORWARDS = 20
"""Requests a lane forwards within a second before it gets an instance of its own."""


class Placement(StrEnum):
    """What a lane that wants an instance is told by the home lane."""

    GRANT = "grant"
    FORWARD = "forward"
    FULL = "full"


def ranking(revision: str, places: Iterable[Place]) -> list[Place]:
    """Orders lanes or nodes for a revision by rendezvous hashing (Thaler and Ravishankar, 1998); the first is its home.

    All compute the same order without asking, and the loss of one place moves only what it was home of.
    """
    return sorted(places, key=lambda place: blake2b(f"{revision}/{place}".encode(), digest_size=8).digest())


def place(
    *,
    lane: int,
    home: int,
    held: Mapping[int, int],
    max_instances: int,
    home_idle: int,
    recent_forwards: float,
) -> Placement:
    """Decides what a lane gets that has no free instance of a revision.

    Args:
        lane: who asks.
        home: the home lane, which answers.
        held: instances each lane holds or has been granted.
        max_instances: how many there may be on this machine.
        home_idle: slots of the home lane that are free now.
        recent_forwards: requests that lane has forwarded during the last second, about.

    Returns:
        GRANT: start one; FORWARD: send the request to the home lane; FULL: there may be no more.
    """
    if sum(held.values()) >= max_instances:
        return Placement.FULL
    quiet = recent_forwards < BUSY_FORWARDS
    if lane != home and not held.get(lane) and quiet and (home_idle or not held.get(home)):
        return Placement.FORWARD
    return Placement.GRANT


def share_of(place: Place, ranked: Sequence[Place], instances: int) -> int:
    """Returns how many of ``instances`` a lane or node gets when they are dealt out over all in order."""
    rank = ranked.index(place)
    return (instances - rank + len(ranked) - 1) // len(ranked)


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance of a revision takes: bytes of memory, thousandths of a core, a rung and a runtime."""

    revision: str
    rung: str
    runtime: str
    memory: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it.

    Attributes:
        zone: nodes that fail together (of a machine, a rack) have the same.
        room: how many more instances it may hold.
        memory: bytes that nobody was promised.
        cpu: thousandths of a core that nobody was promised.
        load: how busy it is, from 0 to 1, as it last said.
        warm: free slots of instances of the revision.
        withdraws: it takes only what no other can.
        held: instances of the revision that it has.
    """

    name: str
    zone: str
    rungs: frozenset[str]
    runtimes: frozenset[str]
    room: int
    memory: int
    cpu: int
    load: float
    warm: int = 0
    withdraws: bool = False
    held: int = 0

    def offers(self, need: Need) -> bool:
        """Whether it runs such instances at all."""
        return need.rung in self.rungs and need.runtime in self.runtimes

    def fits(self, need: Need) -> bool:
        """Whether it has room for one more."""
        return self.room > 0 and self.memory >= need.memory and self.cpu >= need.cpu

    def room_for(self, need: Need) -> int:
        """Returns how many more it has room for."""
        rooms = [self.room, self.memory // need.memory]
        if need.cpu:
            rooms.append(self.cpu // need.cpu)
        return max(0, min(rooms))


def homes_first(need: Need, nodes: Iterable[Candidate]) -> list[Candidate]:
    """Returns the nodes that run such instances: first the `HOMES` of the revision, then the others in their order.

    The homes are the first of the ranking, but of different zones as far as there are some. Who is a home depends on
    what nodes are there, never on how full they are: one that leaves moves only what it was home of.
    """
    offering = {node.name: node for node in nodes if node.offers(need)}
    ranked = [offering[name] for name in ranking(need.revision, offering)]
    first_of_zone: dict[str, Candidate] = {}
    for node in ranked:
        first_of_zone.setdefault(node.zone, node)
    apart = list(first_of_zone.values())[:HOMES]
    chosen = {node.name for node in apart}
    others = [node for node in ranked if node.name not in chosen]
    return apart + others


def choose_node(need: Need, nodes: Sequence[Candidate], turn: int) -> Candidate | None:
    """Returns the node that gets a request for a revision: one with a warm instance, or else one to start it on.

    It is the less loaded of two, because all who choose the least loaded of all at once would choose the same. One that
    withdraws is the last resort: better there than nowhere.

    Args:
        need: what an instance takes.
        nodes: those that live.
        turn: another number for each choice; it decides which two are compared.

    Returns:
        The node, or None where none has room.
    """
    staying = [node for node in nodes if not node.withdraws]
    if chosen := _choose(need, staying, turn):
        return chosen
    return _choose(need, [node for node in nodes if node.withdraws], turn)


def _choose(need: Need, nodes: Sequence[Candidate], turn: int) -> Candidate | None:
    warm = [node for node in nodes if node.warm > 0 and node.offers(need)]
    if warm:
        return _less_loaded(need, warm, turn)
    ordered = homes_first(need, nodes)
    for first in range(0, len(ordered), HOMES):
        fitting = [node for node in ordered[first : first + HOMES] if node.fits(need)]
        if fitting:
            return _less_loaded(need, fitting, turn)
    return None


def _less_loaded(need: Need, nodes: Sequence[Candidate], turn: int) -> Candidate:
    """Draws two (Mitzenmacher, 2001: the power of two choices) and returns the one with less to do."""
    if len(nodes) == 1:
        return nodes[0]
    drawn = int.from_bytes(blake2b(f"{need.revision}/{turn}".encode(), digest_size=8).digest())
    rest, one = divmod(drawn, len(nodes))
    other = (one + 1 + rest % (len(nodes) - 1)) % len(nodes)
    return min(nodes[one], nodes[other], key=lambda node: node.load)
