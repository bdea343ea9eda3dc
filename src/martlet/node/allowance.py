"""How many instances of a revision this lane may have: asked of the revision's home lane, which counts.

The home lane is the first living lane of the revision's ranking. It grants instances to the others one by one, and
hears from each how many it holds: on every change, and once a second all of it, so that a home lane that was started
anew knows soon. ``max_instances`` thus holds for the whole machine but for the second after a lane has died.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from time import monotonic, monotonic_ns

import orjson

from martlet.http.fetch import FetchError, fetch
from martlet.model import Revision
from martlet.scheduling.placement import Placement, place, ranking

DEAD_FOR = 1.0
"""Seconds a lane that did not answer is left out."""
ASK_TIMEOUT = 2.0
REPORT_DELAY = 0.02


class Forwards:
    """About how many requests a lane has forwarded during the last second: a count that decays to nothing in one."""

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


class Allowance:
    """See the module.

    Args:
        lane: this lane.
        lanes: how many there are.
        sockets: the private socket of a lane.
        own: how many instances of a revision this lane holds, and how many of its slots are free.
        held: the revisions this lane holds instances of, with how many.
    """

    def __init__(
        self,
        lane: int,
        lanes: int,
        sockets: Callable[[int], Path],
        own: Callable[[str], tuple[int, int]],
        held: Callable[[], dict[str, int]],
    ) -> None:
        self.lane = lane
        self.lanes = lanes
        self.own = own
        self._socket = sockets
        self._all_held = held
        self._dead_until: dict[int, float] = {}
        self._held: dict[str, dict[int, int]] = defaultdict(dict)
        self._heard: dict[int, int] = {}
        self._forwards: dict[str, dict[int, Forwards]] = defaultdict(lambda: defaultdict(Forwards))
        self._reporter: asyncio.Task[None] | None = None

    # -- as any lane

    def home(self, revision: str) -> int:
        """Returns the lane that decides about a revision now."""
        now = monotonic()
        alive = [n for n in range(self.lanes) if n == self.lane or self._dead_until.get(n, 0.0) <= now]
        return ranking(revision, alive)[0]

    def lost(self, lane: int) -> None:
        """A lane did not answer: for a while it is nobody's home, and what it held is gone with it."""
        self._dead_until[lane] = monotonic() + DEAD_FOR
        self._forget_held(lane)

    async def ask(self, revision: Revision) -> Placement:
        """Asks for one more instance, which the caller has counted among its own already."""
        while True:
            home = self.home(revision.id)
            if home == self.lane:
                return self._decide(revision, self.lane, self.own(revision.id)[0] - 1)
            question = {
                "revision": revision.id,
                "lane": self.lane,
                "at": monotonic_ns(),
                "held": self.own(revision.id)[0] - 1,
                "max": revision.config.max_instances,
            }
            try:
                _, answer = await fetch(
                    self._socket(home), "POST", "/_node/place", question, timeout=ASK_TIMEOUT
                )
                return Placement(orjson.loads(answer)["answer"])
            except (FetchError, KeyError, ValueError):
                self.lost(home)

    def holder(self, revision: str) -> int:
        """Returns the lane that should run a call which this lane may not start an instance for."""
        home = self.home(revision)
        if home != self.lane or self.own(revision)[0]:
            return home
        holders = self._held.get(revision, {})
        alive = [
            lane for lane, held in holders.items() if held and self._dead_until.get(lane, 0.0) <= monotonic()
        ]
        return max(alive, key=holders.__getitem__, default=self.lane)

    def changed(self) -> None:
        """This lane holds other instances than before; the home lanes are told soon, in one report each."""
        if self._reporter is None and self.lanes > 1:
            self._reporter = asyncio.get_running_loop().create_task(self._report())

    async def _report(self) -> None:
        await asyncio.sleep(REPORT_DELAY)
        self._reporter = None
        at = monotonic_ns()
        reports: dict[int, dict[str, int]] = {lane: {} for lane in range(self.lanes) if lane != self.lane}
        for revision, count in self._all_held().items():
            home = self.home(revision)
            if home != self.lane:
                reports[home][revision] = count
        for home, held in reports.items():
            report = {"lane": self.lane, "at": at, "held": held}
            try:
                await fetch(self._socket(home), "POST", "/_node/release", report, timeout=ASK_TIMEOUT)
            except FetchError:
                self.lost(home)

    # -- as the home lane

    def asked(self, revision: str, lane: int, at: int, held: int, max_instances: int) -> Placement:
        """Another lane, which holds ``held`` instances, asks for one more.

        ``at`` is the asking lane's `monotonic_ns`: a report that was on its way meanwhile is older, and ignored.
        """
        self._heard[lane] = max(at, self._heard.get(lane, 0))
        counts = self._held[revision]
        counts[lane] = held
        answer = self._place(revision, lane, counts | {self.lane: self.own(revision)[0]}, max_instances)
        if answer is Placement.GRANT:
            counts[lane] += 1
        return answer

    def reported(self, lane: int, at: int, held: dict[str, int]) -> None:
        """Another lane says all that it holds of the revisions that this lane is home of."""
        if at < self._heard.get(lane, 0):
            return
        self._heard[lane] = at
        self._forget_held(lane)
        for revision, count in held.items():
            self._held[revision][lane] = count

    def _forget_held(self, lane: int) -> None:
        for revision in [revision for revision, counts in self._held.items() if lane in counts]:
            del self._held[revision][lane]
            if not self._held[revision]:
                del self._held[revision]

    def surplus(self, revision: Revision) -> int:
        """Returns how many instances too many there are: a lane that was started anew had some that its home lane, not
        hearing of them, has granted to others meanwhile. 0 where this lane is not the home."""
        if self.home(revision.id) != self.lane:
            return 0
        held = sum(self._held.get(revision.id, {}).values()) + self.own(revision.id)[0]
        return max(0, held - revision.config.max_instances)

    def forwarded(self, revision: str, lane: int) -> None:
        """Another lane has sent a request here rather than start an instance."""
        self._forwards[revision][lane].add()

    def forget(self, revision: str) -> None:
        """The revision is gone."""
        self._held.pop(revision, None)
        self._forwards.pop(revision, None)

    def _decide(self, revision: Revision, lane: int, own: int) -> Placement:
        counts = self._held.get(revision.id, {}) | {self.lane: own}
        return self._place(revision.id, lane, counts, revision.config.max_instances)

    def _place(self, revision: str, lane: int, held: dict[int, int], max_instances: int) -> Placement:
        return place(
            lane=lane,
            home=self.lane,
            held=held,
            max_instances=max_instances,
            home_idle=self.own(revision)[1],
            recent_forwards=self._forwards[revision][lane].recent() if lane != self.lane else 0.0,
        )
