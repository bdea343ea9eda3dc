"""How many cells a stock should hold now."""

from __future__ import annotations

from dataclasses import dataclass

LATELY = 10.0
"""Seconds over which demand is counted: what was taken in them may be wanted again as quickly."""
MEMORY_RESERVE = 0.1
"""Share of the machine's memory below which nothing is kept in stock: what is left belongs to the functions."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stock sees.

    Attributes:
        least: cells that are kept even when none are wanted.
        most: cells that are never exceeded.
        taken: cells that were taken `LATELY`.
        memory_available: share of the machine's memory that is available, from 0 to 1.
    """

    least: int
    most: int
    taken: int
    memory_available: float


def cells_wanted(demand: Demand) -> int:
    """Keeps as many as were taken lately, so that a burst that goes on, or comes again, finds its cells ready.

    Where memory is short a stock is not refilled; what is in it stays, since it is used up before long.
    """
    if demand.memory_available < MEMORY_RESERVE:
        return 0
    return max(demand.least, min(demand.taken, demand.most))
