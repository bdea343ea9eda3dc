"""Which lane runs a call: this one, or the home lane of its revision."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from martlet.errors import MartletError
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop
from martlet.node.call import Call
from martlet.node.node import Node
from martlet.node.pool import Pool
from martlet.scheduling.placement import Placement

FORWARD_FOR = 0.1
"""Seconds for which the home lane's word that it takes a function's requests holds."""


class Dispatch:
    """Prefers an instance of its own, then the home lane's, and starts one here where the home lane grants it."""

    def __init__(self, node: Node, run: Path) -> None:
        self._node = node
        self._allowance = node.allowance
        self._hops = {n: self._hop(n, run / f"lane-{n}.sock") for n in range(node.lanes) if n != node.lane}
        self._forward_until: dict[str, float] = {}
        self._placing: dict[str, list[Call]] = {}
        node.refer = self._refer

    def submit(self, call: Call) -> None:
        """Runs the call somewhere. Raises `Overloaded` if too many wait already."""
        node = self._node
        pool = node.pools.get(call.target.id)
        if pool is None:
            pool = node.pool(call.target.revision)
        if pool.idle or pool.held or not self._hops:
            pool.submit(call)
            return
        home = self._allowance.home(call.target.id)
        if home == node.lane:
            pool.submit(call)
        elif self._forward_until.get(call.target.id, 0.0) > monotonic():
            self._forward(call, home)
        else:
            self._place(call, pool)

    def _place(self, call: Call, pool: Pool) -> None:
        """Asks the home lane once for all calls that come meanwhile."""
        waiting = self._placing.get(call.target.id)
        if waiting is not None:
            waiting.append(call)
            return
        self._placing[call.target.id] = [call]
        self._node.spawn(self._placed(pool))

    async def _placed(self, pool: Pool) -> None:
        revision = pool.revision
        pool.starting += 1
        placement = await self._allowance.ask(revision)
        calls = self._placing.pop(revision.id)
        if placement is Placement.GRANT:
            self._node.spawn(pool.start_granted())
            for call in calls:
                self._submit(pool, call)
            return
        pool.starting -= 1
        self._forward_until[revision.id] = monotonic() + FORWARD_FOR
        for call in calls:
            self._refer(call)

    def _submit(self, pool: Pool, call: Call) -> None:
        try:
            pool.submit(call)
        except MartletError as error:
            call.fail(error)

    def _refer(self, call: Call) -> None:
        """Sends a call that this lane may not run to one that may."""
        lane = self._allowance.holder(call.target.id)
        if lane == self._node.lane:
            self._submit(self._node.pool(call.target.revision), call)
        elif not call.exchange.gone:
            self._forward(call, lane)

    def _forward(self, call: Call, lane: int) -> None:
        identity = b"x-martlet-revision: %b\r\nx-martlet-lane: %d\r\n" % (
            call.target.id.encode(),
            self._node.lane,
        )
        self._hops[lane].send(call.exchange, call.passage.forwarded(b"/_node/invoke", identity), call.last)

    def _hop(self, lane: int, path: Path) -> Hop:
        def elsewhere(unsent: list[Exchange]) -> None:
            self._allowance.lost(lane)
            for exchange in unsent:
                self._refer(exchange.context)

        return Hop(path, "another lane of this machine", elsewhere)
