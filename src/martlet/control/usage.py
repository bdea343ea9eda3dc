"""What all nodes said last of the revisions that are in use, by revision: there are many more than each node has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil

from martlet.model import Node, Revision

_NOBODY: Mapping[str, float] = {}
_NOTHING: Mapping[str, int] = {}


class Usage:
    """See the module.

    Args:
        runners: the nodes that run functions.

    Attributes:
        runners: likewise.
        divided: the last division that every one of them goes by which can; None: none of them can.
    """

    def __init__(self, runners: Iterable[Node]) -> None:
        self.runners = list(runners)
        self._held: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._calls: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for node in self.runners:
            for name, (held, _) in node.warm.items():
                self._held[name][node.id] = held
            for name, calls in node.calls.items():
                self._calls[name][node.id] = calls
        self.divided = min(
            (node.divided for node in self.runners if any(lane.state == "ready" for lane in node.lanes)),
            default=None,
        )

    def __contains__(self, revision: Revision) -> bool:
        return revision.id in self._held or revision.id in self._calls

    def held(self, revision: Revision) -> Mapping[str, int]:
        """Returns the nodes that have instances of a revision, with how many."""
        return self._held.get(revision.id, _NOTHING)

    def calls(self, revision: Revision) -> Mapping[str, float]:
        """Returns the nodes where calls of a revision ran or waited, with how many at once."""
        return self._calls.get(revision.id, _NOBODY)

    def wanted(self, revision: Revision) -> dict[str, int]:
        """Returns the nodes whose calls take instances of a revision, with how many."""
        return {
            name: ceil(calls / revision.config.concurrency) for name, calls in self.calls(revision).items()
        }
