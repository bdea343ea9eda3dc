"""What points at a revision, so that requests go to it, as the store says of its function."""

from __future__ import annotations

from martlet.model import Revision
from martlet.storage.registry import RegistryView


class Pointers:
    """See the module.

    Args:
        view: the store in memory.
    """

    def __init__(self, view: RegistryView) -> None:
        self._view = view

    def latest(self, function: str) -> Revision | None:
        """Returns the revision of a function that serves; None where there is no such function."""
        found = self._view.functions.get(function)
        return None if found is None else self._view.revisions.get((function, found.latest))

    def is_current(self, revision: Revision) -> bool:
        """Whether something points at a revision."""
        function = self._view.functions.get(revision.function)
        stored = self._view.revisions.get((revision.function, revision.number))
        if function is None or not (stored is None or stored is revision or stored == revision):
            return False  # it was deleted, and may have been made anew
        aliases = self._view.aliases.get(revision.function, {}).values()
        return function.latest == revision.number or any(
            revision.number in alias.weights for alias in aliases
        )

    def is_replaced(self, revision: Revision) -> bool:
        """Whether nothing points at the revision, and no deploy is about to."""
        function = self._view.functions.get(revision.function)
        candidate = function is not None and revision.number > function.latest
        return not candidate and not self.is_current(revision)
