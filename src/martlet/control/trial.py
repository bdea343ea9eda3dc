"""Where a revision shows that it loads, before anything points at it: where its first request will find it warm."""

from __future__ import annotations

from typing import Any

import structlog

from martlet.control.lanes import Lanes
from martlet.errors import NoCapacity, Unavailable
from martlet.model import Revision, Role
from martlet.scheduling.candidates import NOWHERE, candidates, need_of, shares_among
from martlet.scheduling.placement import choose_node
from martlet.settings import SystemSettings
from martlet.storage.registry import RegistryView

log = structlog.get_logger()


class Trial:
    """See the module.

    Args:
        settings: of this machine.
        own: its id as a node.
        lanes: its lanes.
        view: where the other nodes are known.
    """

    def __init__(self, settings: SystemSettings, own: str, lanes: Lanes, view: RegistryView) -> None:
        self._settings = settings
        self._own = own
        self._lanes = lanes
        self._view = view

    async def load(self, revision: Revision) -> dict[str, Any]:
        """Starts an instance of a revision and keeps it; returns ``{"mode", "load_ms", "log"}``.

        Raises:
            FunctionLoadFailed: the code does not load; ``extra`` says more.
            NoCapacity: no machine has room to try.
            Unavailable: no lane answers.
        """
        tried: set[str] = set()
        while self._settings.clustered:
            nodes = [
                each for each in self._view.nodes.values() if each.id not in tried and Role.NODE in each.roles
            ]
            reachable = [
                each
                for each in nodes
                if each.id == self._own or (each.peer is not None and not each.stopping)
            ]
            withdrawing = self._view.withdrawing
            shares = shares_among(reachable, revision, None, withdrawing)
            found = candidates(reachable, revision, withdrawing, shares)
            chosen = choose_node(need_of(revision), found, 0)
            if chosen is None or chosen.name == self._own:
                break
            try:
                return await self._lanes.load(revision, chosen.name)
            except NoCapacity:
                raise
            except Unavailable as error:
                log.warning("node_unreachable", node=chosen.name, error=str(error))
                tried.add(chosen.name)
        if Role.NODE not in self._settings.roles:
            raise NoCapacity(NOWHERE)
        return await self._lanes.load(revision)
