"""How many instances of a revision this lane may have: asked of the revision's home lane, which counts.

The home lane is the one that needed an instance first (`Homes`), until no lane holds one; or, where a lane is to learn
how a function is used, and so to be its home for good, the first living one of the revision's ranking. It grants
instances to the others one by one, and hears from each how many it holds: on every change, and once a second all of it,
so that a new home lane knows soon. What this machine may have (`Portion`) thus holds for all of its lanes, but for the
second after one has died.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import orjson

from martlet.http.fetch import FetchError, fetch
from martlet.model import Revision
from martlet.node.forwards import Forwards
from martlet.node.homes import Homes
from martlet.scheduling.placement import Placement, place, ranking

Most = Callable[[Revision], int]

DEAD_FOR = 1.0
"""Seconds a lane that did not answer is left out."""
ASK_TIMEOUT = 10.0
"""Seconds after which a lane counts as gone that takes connections and says nothing. What it held is then granted to
others: one that is busy, or waits for its core, must not be taken for it. One that has died is known at once.
"""
REPORT_DELAY = 0.02


class Allowance:
    """See the module.

    Args:
        lane: this lane.
        lanes: how many there are.
        sockets: the private socket of a lane.
        own: how many instances of a revision this lane holds, without those it asks for now, and how many of its slots
            are free.
        held: the revisions this lane holds instances of, with how many.
        most: how many instances of a revision all lanes together may have.
        homes: who is at home; None: who is first in the ranking.
    """

    def __init__(
        self,
        lane: int,
        lanes: int,
        sockets: Callable[[int], Path],
        own: Callable[[str], tuple[int, int]],
        held: Callable[[], dict[str, int]],
        most: Most = lambda revision: revision.config.max_instances,
        homes: Homes | None = None,
    ) -> None:
        self.lane = lane
        self.lanes = lanes
        self.own = own
        self._socket = sockets
        self._all_held = held
        self._most = most
        self._homes = homes
        self._behind: dict[str, int] = {}
        self._dead_until: dict[int, float] = {}
        self._held: dict[str, dict[int, int]] = defaultdict(dict)
        self._heard: dict[int, int] = {}
        self._talks = [asyncio.Lock() for _ in range(lanes)]
        """Each lane hears one thing at a time, so that no report leaves out what is being granted."""
        self._forwards: dict[str, dict[int, Forwards]] = defaultdict(lambda: defaultdict(Forwards))
        self._reporter: asyncio.Task[None] | None = None
        self._reports: set[asyncio.Task[None]] = set()

    # -- as any lane

    def home(self, revision: str) -> int:
        """Returns the lane that decides about a revision now: where nobody is at home, this one from now on."""
        home = None if self._homes is None else self._homes.take(revision)
        return self._or_first(home, revision)

    def host(self, revision: str) -> int:
        """Returns the lane that is at home to a revision, or would be if all had to decide that at once."""
        home = None if self._homes is None else self._homes.holder(revision)
        return self._or_first(home, revision)

    def _or_first(self, home: int | None, revision: str) -> int:
        """Returns the lane that is at home, or the first of the ranking where there is none that lives."""
        now = monotonic()
        if home is not None and (home == self.lane or self._dead_until.get(home, 0.0) <= now):
            return home
        alive = [n for n in range(self.lanes) if n == self.lane or self._dead_until.get(n, 0.0) <= now]
        return ranking(revision, alive)[0]

    def vacate(self) -> None:
        """Is at home no more to revisions that no lane holds an instance of; called now and then."""
        if self._homes is not None:
            for revision in self._homes.taken:
                if not self.own(revision)[0] and not any(self._held.get(revision, {}).values()):
                    self._homes.leave(revision)

    def lost(self, lane: int) -> None:
        """A lane did not answer: for a while it is nobody's home, and what it held is gone with it."""
        self._dead_until[lane] = monotonic() + DEAD_FOR
        self._forget_held(lane)

    async def ask(self, revision: Revision) -> Placement:
        """Asks for one more instance. Where it is granted the caller holds it at once, before anything else is done."""
        while (home := self.home(revision.id)) != self.lane:
            async with self._talks[home]:
                if home != self.home(revision.id):
                    continue  # it was lost meanwhile
                question = {
                    "revision": revision.id,
                    "lane": self.lane,
                    "at": monotonic_ns(),
                    "held": self.own(revision.id)[0],
                    "max": self._most(revision),
                }
                try:
                    answer = await self._tell(home, "place", question)
                    return Placement(answer["answer"])
                except (FetchError, KeyError, ValueError):
                    self.lost(home)
        return self._decide(revision)

    async def _tell(self, lane: int, what: str, document: Mapping[str, object]) -> dict[str, Any]:
        _, answer = await fetch(self._socket(lane), "POST", f"/_node/{what}", document, timeout=ASK_TIMEOUT)
        told: dict[str, Any] = orjson.loads(answer)
        return told

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
            self._reports.add(self._reporter)
            self._reporter.add_done_callback(self._reports.discard)

    async def _report(self) -> None:
        await asyncio.sleep(REPORT_DELAY)
        self._reporter = None
        behind: dict[str, int] = {}
        for lane in range(self.lanes):
            if lane != self.lane:
                behind |= await self._report_to(lane)
        self._behind = behind

    async def _report_to(self, home: int) -> dict[str, int]:
        async with self._talks[home]:
            held = {
                revision: count for revision, count in self._all_held().items() if self.home(revision) == home
            }
            report = {"lane": self.lane, "at": monotonic_ns(), "held": held}
            try:
                behind: dict[str, int] = (await self._tell(home, "release", report))["behind"]
                return behind
            except (FetchError, KeyError, ValueError):
                self.lost(home)
                return {}

    async def close(self) -> None:
        """Reports no more."""
        for report in self._reports:
            report.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)

    # -- as the home lane

    def asked(self, revision: str, lane: int, at: int, held: int, max_instances: int) -> Placement:
        """Another lane, which holds ``held`` instances, asks for one more.

        ``at`` is the asking lane's `monotonic_ns`: a report that was on its way meanwhile is older, and ignored.
        """
        if self._homes is not None and self._homes.take(revision) != self.lane:
            return Placement.FORWARD  # it has asked the home lane of a moment ago
        self._heard[lane] = max(at, self._heard.get(lane, 0))
        counts = self._held[revision]
        counts[lane] = held
        answer = self._place(revision, lane, counts | {self.lane: self.own(revision)[0]}, max_instances)
        if answer is Placement.GRANT:
            counts[lane] += 1
        return answer

    def reported(self, lane: int, at: int, held: Mapping[str, int]) -> dict[str, int]:
        """Another lane says all that it holds of the revisions that this lane is home of.

        Returns:
            What lanes hold of each that come behind it in the ranking: it gives up what is too many before they do.
        """
        if at >= self._heard.get(lane, 0):
            self._heard[lane] = at
            self._forget_held(lane)
            for revision, count in held.items():
                self._held[revision][lane] = count
        return {revision: self._held_behind(revision, lane) for revision in held}

    def _forget_held(self, lane: int) -> None:
        for revision in [revision for revision, counts in self._held.items() if lane in counts]:
            del self._held[revision][lane]
            if not self._held[revision]:
                del self._held[revision]

    def surplus(self, revision: Revision) -> int:
        """Returns how many instances this lane is to give up, because all lanes hold more than the machine may have.

        That is less than it was; or a lane was started anew and had some that its home lane, not hearing of them, has
        granted to others meanwhile. The home lane gives up its own first, then the others in the order of the ranking.
        """
        own = self.own(revision.id)[0]
        if not own:
            return 0
        if self.home(revision.id) == self.lane:
            behind = self._held_behind(revision.id, self.lane)
        else:
            behind = self._behind.get(revision.id, 0)
        return min(own, max(0, own + behind - self._most(revision)))

    def _held_behind(self, revision: str, lane: int) -> int:
        held = self._held.get(revision)
        if not held:
            return 0
        home = self.home(revision)
        ranked = sorted(ranking(revision, range(self.lanes)), key=lambda other: other != home)
        return sum(held.get(other, 0) for other in ranked[ranked.index(lane) + 1 :])

    def forwarded(self, revision: str, lane: int) -> None:
        """Another lane has sent a request here rather than start an instance."""
        self._forwards[revision][lane].add()

    def forget(self, revision: str) -> None:
        """The revision is gone."""
        self._held.pop(revision, None)
        self._forwards.pop(revision, None)
        self._behind.pop(revision, None)
        if self._homes is not None:
            self._homes.leave(revision)

    def _decide(self, revision: Revision) -> Placement:
        counts = self._held.get(revision.id, {}) | {self.lane: self.own(revision.id)[0]}
        return self._place(revision.id, self.lane, counts, self._most(revision))

    def _place(self, revision: str, lane: int, held: dict[int, int], max_instances: int) -> Placement:
        return place(
            lane=lane,
            home=self.lane,
            held=held,
            max_instances=max_instances,
            home_idle=self.own(revision)[1],
            recent_forwards=self._forwards[revision][lane].recent() if lane != self.lane else 0.0,
        )
