"""What nodes want of a revision, without what only trembles: one instance to and fro is a cold start each time."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

WINDOW = 15.0
"""Seconds for which a node that wants a little less counts as before: what it says is an average of some five."""
LITTLE = 3
"""The part of what it wanted that is little: a third, rounded up."""


class Steadiness:
    """See the module; of one revision."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[int, float]] = {}

    def steadied(self, now: float, wanted: Mapping[str, int]) -> dict[str, int]:
        """Returns what each node is to be taken to want.

        That is what it does want, if that is more than lately, far less, or nothing; else what it wanted lately.

        Args:
            now: seconds; it never goes back.
            wanted: instances that each node wants now.
        """
        levels = {}
        for name, count in wanted.items():
            level, since = self._levels.get(name, (0, now))
            trembles = 0 < level - count <= ceil(level / LITTLE) and now - since <= WINDOW
            levels[name] = (level, since) if count and trembles else (count, now)
        self._levels = levels
        return {name: level for name, (level, _) in levels.items()}
