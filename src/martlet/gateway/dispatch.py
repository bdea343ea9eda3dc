"""Where a call runs: on this lane, on the home lane of its revision, or on another machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from martlet.errors import MartletError, NoCapacity
from martlet.gateway.fleet import Fleet
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, over_unix
from martlet.node.call import Call
from martlet.node.node import Node
from martlet.node.pool import Pool
from martlet.scheduling.candidates import NOWHERE
from martlet.scheduling.placement import Placement

FORWARD_FOR = 0.1
"""Seconds for which the home lane's word that it takes a function's requests holds."""


class Dispatch:
    """Prefers an instance of its own, then the machine that placement chooses; on this one it prefers the home lane's,
    and starts one here where the home lane grants it.

    Args:
        node: of this lane.
        run: the folder of the lanes' private sockets.
        fleet: the other machines; None where this one is all there is.

    Attributes:
        submit: runs a call somewhere. Raises `Overloaded` if too many wait already, `NoCapacity` if no node has room.
    """

    def __init__(self, node: Node, run: Path, fleet: Fleet | None = None) -> None:
        self._node = node
        self._allowance = node.allowance
        self._hops = {n: self._hop(n, run / f"lane-{n}.sock") for n in range(node.lanes) if n != node.lane}
        self._forward_until: dict[str, float] = {}
        self._placing: dict[str, list[Call]] = {}
        node.refer = self._refer
        self.submit: Callable[[Call], None] = self.submit_here
        if fleet is not None:
            self.submit = partial(self._submit_anywhere, fleet)
            fleet.again = self._again

    def submit_here(self, call: Call) -> None:
        """Runs the call on this machine. Raises `Overloaded` if too many wait already."""
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

    def _submit_anywhere(self, fleet: Fleet, call: Call) -> None:
        pool = self._node.pools.get(call.target.id)
        if pool is not None and (pool.idle or pool.held):
            pool.submit(call)
            return
        runs = bool(self._node.drivers)
        if fleet.alone and runs:
            self.submit_here(call)
            return
        chosen = fleet.choose(call.target.revision)
        if chosen is not None and not fleet.is_own(chosen):
            fleet.forward(call, chosen)
        elif runs:
            self.submit_here(call)  # it says itself what it lacks
        else:
            raise NoCapacity(NOWHERE)

    def _again(self, call: Call) -> None:
        """A call comes back unsent: its machine cannot be reached."""
        if not call.exchange.gone:
            try:
                self.submit(call)
            except MartletError as error:
                call.fail(error)

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

        return Hop(over_unix(path), "another lane of this machine", elsewhere)
