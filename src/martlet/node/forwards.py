"""About how many requests a lane has forwarded to another during the last second."""

from __future__ import annotations

from time import monotonic


class Forwards:
    """See the module: a count that decays to nothing within a second."""

    __slots__ = ("count", "since")

    def __init__(self) -> None:
        self.count = 0.0
        self.since = monotonic()

    def add(self) -> None:
        """Counts one."""
        self.count = self.recent() + 1

    def recent(self) -> float:
        """Returns the count now."""
        now = monotonic()
        self.count *= max(0.0, 1.0 - (now - self.since))
        self.since = now
        return self.count
