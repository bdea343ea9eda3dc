"""Where a call runs: on this lane, on the home lane of its revision, or on another machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from martlet.errors import MartletError, NoCapacity, Overloaded
from martlet.gateway.fleet import Fleet
from martlet.gateway.waiting_room import WaitingRoom
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, over_unix
from martlet.http.refusal import NO_ROOM
from martlet.node.call import SENDER, Arrival, Call
from martlet.node.node import Node
from martlet.node.pool import Pool
from martlet.scheduling.candidates import NOWHERE
from martlet.scheduling.placement import BUSY_FORWARDS, Placement

MOST_REFUSALS = 3
"""Machines that may have had no room for a call before that is its answer."""
ELSEWHERE = "other machines run all the instances that there may be (max_instances)"
FORWARD_FOR = 0.1
"""Seconds for which the home lane's word that it takes a function's requests holds."""


class Dispatch:
    """Prefers an instance of its own, then the machine that placement chooses; on this one it prefers the home lane's,
    and starts one here where the home lane grants it. It asks for that only when there is much to forward: a first
    request does not wait for an answer that is known.

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
        self._fleet = fleet
        self._hops = {n: self._hop(n, run / f"lane-{n}.sock") for n in range(node.lanes) if n != node.lane}
        self._placing: dict[str, list[Call]] = {}
        node.refer = self._refer
        self.submit: Callable[[Call], None] = self.submit_here
        if fleet is not None:
            self._waiting_room = WaitingRoom(fleet, self._again, node.recorder.stats)
            self.submit = partial(self._submit_anywhere, fleet)
            fleet.again, fleet.refused = self._again, partial(self._refused, fleet)
            node.pass_on = partial(self._pass_on, fleet, fleet.own)

    def submit_here(self, call: Call) -> None:
        """Runs the call on this machine. Raises `Overloaded` if too many wait already."""
        node = self._node
        pool = node.pools.get(call.target.id)
        if pool is None:
            pool = node.pool(call.target.revision)
        if pool.idle or pool.held or pool.backoff.pause:
            pool.submit(call)
            return
        if node.portion.most(call.target.revision) <= 0:
            raise Overloaded(ELSEWHERE)
        if not self._hops:
            pool.submit(call)
            return
        home = self._allowance.home(call.target.id)
        if home == node.lane:
            pool.submit(call)
        elif pool.forwards.recent() < BUSY_FORWARDS or pool.forward_until > monotonic():
            pool.forwards.add()
            self._forward(call, home)
        else:
            self._place(call, pool)

    def _submit_anywhere(self, fleet: Fleet, call: Call) -> None:
        try:
            self._submit_somewhere(fleet, call)
        except NO_ROOM as error:
            if not self._pass_on(fleet, fleet.own, call, error):
                raise

    def _submit_somewhere(self, fleet: Fleet, call: Call) -> None:
        pool = self._node.pools.get(call.target.id)
        if pool is not None and (pool.idle or pool.held) and not self._node.withdrawal.begun:
            pool.submit(call)
            return
        runs = bool(self._node.drivers)
        if fleet.alone and runs:
            self.submit_here(call)
            return
        chosen = fleet.choose(call.target.revision, call.refused_by)
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
                self._node.refuse(call, error)

    def _pass_on(self, fleet: Fleet, by: str, call: Call, error: MartletError) -> bool:
        """Whether a call that was not begun is somebody else's now: for lack of room it goes back to the lane that has
        sent it, on to another machine, or waits for one that is expected.

        Args:
            fleet: the other machines.
            by: the machine that refused it.
            call: it.
            error: why.
        """
        if not isinstance(error, NO_ROOM):
            return False
        if isinstance(call, Arrival):
            call.refuse(error)
            return True
        if call.exchange.gone:
            return False
        call.refused_by += (by,)
        chosen = None
        if len(call.refused_by) < MOST_REFUSALS:
            chosen = fleet.choose(call.target.revision, call.refused_by)
        if chosen is None:
            call.refused_by = ()
            return self._waiting_room.take(call, error)
        if fleet.is_own(chosen):
            self._again(call)
        else:
            fleet.forward(call, chosen)
        return True

    def _refused(self, fleet: Fleet, by: str, call: Call, error: MartletError) -> None:
        """A call comes back: nothing of it was begun."""
        if not self._pass_on(fleet, by, call, error):
            self._node.refuse(call, error)

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
        placement = await pool.claim()
        calls = self._placing.pop(revision.id)
        if placement is Placement.GRANT:
            self._node.spawn(pool.start_granted())
            for call in calls:
                self._submit(pool, call)
            return
        pool.forward_until = monotonic() + FORWARD_FOR
        for call in calls:
            self._refer(call)

    def _submit(self, pool: Pool, call: Call) -> None:
        try:
            pool.submit(call)
        except MartletError as error:
            self._refuse(call, error)

    def _refuse(self, call: Call, error: MartletError) -> None:
        if not self._node.pass_on(call, error):
            self._node.refuse(call, error)

    def _refer(self, call: Call) -> None:
        """Sends a call that this lane may not run to one that may."""
        lane = self._allowance.holder(call.target.id)
        if lane == self._node.lane:
            pool = self._node.pool(call.target.revision)
            if pool.held or self._node.portion.most(call.target.revision) > 0:
                self._submit(pool, call)
            else:
                self._refuse(call, Overloaded(ELSEWHERE))
        elif not call.exchange.gone:
            self._forward(call, lane)

    def _forward(self, call: Call, lane: int) -> None:
        identity = b"x-martlet-revision: %b\r\nx-martlet-lane: %d\r\n" % (
            call.target.id.encode(),
            self._node.lane,
        )
        if call.sender:
            identity += b"%b: %b\r\n" % (SENDER, call.sender.encode())
        self._hops[lane].send(call.exchange, call.passage.forwarded(b"/_node/invoke", identity), call.last)

    def _hop(self, lane: int, path: Path) -> Hop:
        def elsewhere(unsent: list[Exchange]) -> None:
            self._allowance.lost(lane)
            for exchange in unsent:
                self._refer(exchange.context)

        def refused(fleet: Fleet, exchange: Exchange, error: MartletError) -> None:
            self._refused(fleet, fleet.own, exchange.context, error)

        return Hop(
            over_unix(path),
            "another lane of this machine",
            elsewhere,
            on_refused=None if self._fleet is None else partial(refused, self._fleet),
        )
