"""How many instances of a revision this machine may have, and keeps, of what all machines together may and keep."""

from __future__ import annotations

from collections.abc import Mapping

from martlet.model import Node, Revision, Role
from martlet.node.withdrawal import Withdrawal
from martlet.scheduling.candidates import described, need_of, shares_among
from martlet.scheduling.shares import dealt
from martlet.storage.registry import RegistryView


class Portion:
    """See the module. What it says is known here: nobody is asked.

    Args:
        view: where the nodes, and the divisions, are known.
        own: the id of this node; None where it shares its functions with no other.
        withdrawal: whether it gives its work to others. Then it has no part, and what it runs yet does not count.
    """

    def __init__(self, view: RegistryView, own: str | None, withdrawal: Withdrawal) -> None:
        self._view = view
        self._withdrawal = withdrawal
        self._own = own
        self._shares: dict[tuple[str, float], dict[str, int]] = {}
        self._least: dict[tuple[str, float], int] = {}
        view.on_nodes.append(self._changed)

    def most(self, revision: Revision) -> int:
        """Returns how many instances of a revision this machine may have."""
        if self._own is None or self._withdrawal.begun:
            return revision.config.max_instances
        return self.shares(revision).get(self._own, 0)

    def least(self, revision: Revision) -> int:
        """Returns how many instances of a revision this machine keeps: of ``min_instances``, or for expected calls."""
        if self._own is None:
            return revision.config.min_instances
        if self._withdrawal.begun:
            return 0
        division = self._view.divisions.get((revision.function, revision.number))
        expected = 0
        if division is not None and division.created == revision.created:
            expected = division.wanted.get(self._own, 0)
        minimum = self._minimum(revision) if revision.config.min_instances else 0
        return min(max(minimum, expected), self.most(revision))

    def _minimum(self, revision: Revision) -> int:
        key = revision.id, revision.created
        least = self._least.get(key)
        if least is None:
            withdrawing = self._view.withdrawing
            staying = [node for node in self._runners() if node.id not in withdrawing]
            homes = dealt(need_of(revision), revision.config.min_instances, described(staying, revision))
            least = self._least[key] = homes.get(self._own or "", 0)
        return least

    def shares(self, revision: Revision) -> Mapping[str, int]:
        """Returns how many instances of a revision each node may have, by its id."""
        key = revision.id, revision.created
        shares = self._shares.get(key)
        if shares is None:
            division = self._view.divisions.get((revision.function, revision.number))
            shares = self._shares[key] = shares_among(
                self._runners(), revision, division, self._view.withdrawing
            )
            if not shares and self._own is not None:  # before it has joined, and alone
                shares[self._own] = revision.config.max_instances
        return shares

    def _runners(self) -> list[Node]:
        return [node for node in self._view.nodes.values() if Role.NODE in node.roles]

    def _changed(self) -> None:
        if self._own is None or self._own in self._view.nodes or not self._view.nodes:
            self._shares.clear()
            self._least.clear()
