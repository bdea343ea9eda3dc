"""Which lane decides about a revision, and which lane gets its next instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import blake2b

BUSY_FORWARDS = 20
"""Requests a lane forwards within a second before it gets an instance of its own."""


class Placement(StrEnum):
    """What a lane that wants an instance is told by the home lane."""

    GRANT = "grant"
    FORWARD = "forward"
    FULL = "full"


def ranking(revision: str, lanes: Iterable[int]) -> list[int]:
    """Orders lanes for a revision by rendezvous hashing (Thaler and Ravishankar, 1998); the first is its home.

    Every lane computes the same order without asking, and the loss of one lane moves only what it was home of.
    """
    return sorted(lanes, key=lambda lane: blake2b(f"{revision}/{lane}".encode(), digest_size=8).digest())


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
        max_instances: the revision's limit on this machine.
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


def share_of(lane: int, ranked: list[int], instances: int) -> int:
    """Returns how many of ``instances`` this lane keeps when they are dealt out over the lanes in order."""
    rank = ranked.index(lane)
    return (instances - rank + len(ranked) - 1) // len(ranked)
