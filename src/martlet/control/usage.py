"""What all nodes said last of the revisions that are in use, by revision: there are many more than each node has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil

from martlet.model import Node, Revision
from martlet.scheduling.candidates import described, need_of
from martlet.scheduling.shares import brought_home

_NOBODY: Mapping[str, float] = {}
_NOTHING: Mapping[str, int] = {}


class Usage:
    """See the module.

    Args:
        runners: the nodes that run functions.

    Attributes:
        runners: likewise.
        away: the ids of those that have no lane that is ready.
        divided: the last division that every one of them goes by which can; None: none of them can.
    """

    def __init__(self, runners: Iterable[Node]) -> None:
        self.runners = list(runners)
        self._held: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._calls: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._forwarded: defaultdict[str, dict[str, Mapping[str, float]]] = defaultdict(dict)
        self._by_id = {node.id: node for node in self.runners}
        for node in self.runners:
            for name, (held, _) in node.warm.items():
                self._held[name][node.id] = held
            for name, calls in node.calls.items():
                self._calls[name][node.id] = calls
            for name, sent in node.forwarded.items():
                self._forwarded[name][node.id] = sent
        self.away = {node.id for node in self.runners if all(lane.state != "ready" for lane in node.lanes)}
        self.divided = min((node.divided for node in self.runners if node.id not in self.away), default=None)

    def __contains__(self, revision: Revision) -> bool:
        return revision.id in self._held or revision.id in self._calls

    def held(self, revision: Revision) -> Mapping[str, int]:
        """Returns the nodes that have instances of a revision, with how many."""
        return self._held.get(revision.id, _NOTHING)

    def calls(self, revision: Revision) -> Mapping[str, float]:
        """Returns the nodes where calls of a revision ran or waited, with how many at once."""
        return self._calls.get(revision.id, _NOBODY)

    def at_home(self, revision: Revision) -> Mapping[str, float]:
        """Returns the nodes that calls of a revision came to, as far as these could run them, with how many at once.

        Of one that may have one instance only it is where they run: to move that would leave nobody with one.
        """
        forwarded = self._forwarded.get(revision.id)
        if not forwarded or revision.config.max_instances == 1:
            return self.calls(revision)
        need = need_of(revision)
        senders = {
            name: self._by_id[name] for sent in forwarded.values() for name in sent if name in self._by_id
        }
        able = {
            each.name: (each.held + each.room_for(need)) * revision.config.concurrency
            for each in described(senders.values(), revision)
            if each.offers(need)
        }
        return brought_home(self.calls(revision), forwarded, able)

    def wanted(self, revision: Revision) -> dict[str, int]:
        """Returns the nodes that calls of a revision came to, with how many instances these take there."""
        return {
            name: ceil(calls / revision.config.concurrency) for name, calls in self.at_home(revision).items()
        }

    def lent(self, revision: Revision) -> dict[str, int]:
        """Returns the nodes that run calls of others, with how many instances these take besides their own."""
        wanted = self.wanted(revision)
        return {
            name: ceil(calls / revision.config.concurrency) - wanted[name]
            for name, calls in self.calls(revision).items()
        }
