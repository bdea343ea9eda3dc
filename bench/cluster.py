"""What several machines cost a request, and how soon they see a death, a deploy, and where the requests are.

The machines are those of the tests of clusters: three in network namespaces of this one, whose cores all of them share
with etcd (three members), S3, Redis and the load. What a thousand nodes cost is measured with simulated ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from bench.load import Load, load, percentile
from bench.platform import HELLO
from bench.registry import registry
from bench.row import Row, figure
from tests.cluster.conftest import Machine, Machines, making_machines
from tests.cluster.traffic import COUNTED, Traffic, listed, placed
from tests.system.conftest import until

ROUNDS = 3
LOOK = 0.05
"""Seconds between two looks at what has become of a dead machine: another one is asked each time."""
KEPT = 4
"""``min_instances`` of a function, half of which are on the machine that dies."""
CLIENTS = 8
"""Of each of the machines that do not die."""
AT_WORK = 0.8
"""Of the requests that were answered before a machine died, those that are to be answered each second again."""
MOVED = 4
"""Instances that are divided over two machines."""


def cluster(seconds: float, deploys: int, nodes: int, functions: int) -> Iterator[Row]:
    """All of it, with a cluster of three machines first and then a simulated one.

    Args:
        seconds: how long each load is.
        deploys: updates of a function that are followed to every gateway.
        nodes: how many are simulated.
        functions: how many they have.
    """
    with (
        tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder,
        making_machines(Path(folder)) as machines,
        machines.router.entered(),
    ):
        yield from hop(machines, seconds)
        yield from visibility(machines, deploys)
        yield from moves(machines)
        yield from death(machines)
    yield from registry(2 * seconds, nodes, functions)


def hop(machines: Machines, seconds: float) -> Iterator[Row]:
    """A warm function of one instance, asked through the machine that has it, and through a gateway without any."""
    holder, _ = placed(machines, "hop", code=HELLO, max_instances=1)
    ways = {"the machine that runs it": holder, "a gateway elsewhere": machines.first}
    seen: dict[tuple[int, str], list[Load]] = {}
    for machine in ways.values():
        _load(machine, 1, 1)  # connections are made, and heads are known
    for _ in range(ROUNDS):
        for connections in (1, 32):
            for name, machine in ways.items():
                seen.setdefault((connections, name), []).append(_load(machine, connections, seconds))
    here, there = ways
    for share in ("p50", "p99"):
        alone, over = (median(getattr(each, share) for each in seen[1, name]) for name in ways)
        yield figure(f"{share} of 1 connection, through {here}", alone, "ms")
        yield figure(f"{share} of 1 connection, through {there}", over, "ms")
        yield figure(f"{share} that the hop adds", over - alone, "ms")
    alone, over = (median(each.rate for each in seen[32, name]) for name in ways)
    yield figure(f"throughput of 32 connections, through {here}", alone, "requests/s")
    yield figure(f"throughput of 32 connections, through {there}", over, "requests/s")
    yield figure("throughput with the hop against without", 100 * over / alone, "%")
    machines.first.client.delete("/functions/hop")


def _load(machine: Machine, connections: int, seconds: float) -> Load:
    key = machine.client.headers["authorization"].removeprefix("Bearer ")
    seen = load(machine.url, ["/invoke/hop"], connections=connections, seconds=seconds, key=key)
    if seen.failed:
        raise RuntimeError(f"{seen.failed} requests over {machine.address} failed")
    return seen


def visibility(machines: Machines, deploys: int) -> Iterator[Row]:
    """Updates through the machines in turn; each gateway is asked until it answers as the last one does."""
    machines.first.deploy("seen", _says(0))
    until(
        lambda: all(each.invoke("seen").text == "0" for each in machines.all), why="a function is not served"
    )
    accepted, last, all_of_them = [], [], []
    with ThreadPoolExecutor(len(machines.all)) as pool:
        for number in range(1, deploys + 1):
            machine = machines.all[number % len(machines.all)]
            began = time.monotonic()
            answer = machine.client.put("/functions/seen", json={"name": "seen", "code": _says(number)})
            ended = time.monotonic()
            if answer.status_code != 200:
                raise RuntimeError(f"an update was refused: {answer.text}")
            accepted.append((ended - began) * 1e3)
            took = [*pool.map(lambda each, text=str(number): _answers(each, text), machines.all)]
            all_of_them += [(each - ended) * 1e3 for each in took]
            last.append((max(took) - ended) * 1e3)
    for share in (0.5, 0.99):
        name = f"p{share * 100:.0f}"
        yield figure(f"an update is accepted, {name} of {deploys}", percentile(accepted, share), "ms")
        yield figure(f"until a gateway answers with it, {name}", percentile(all_of_them, share), "ms")
        yield figure(f"until all three do, {name}", percentile(last, share), "ms")
    machines.first.client.delete("/functions/seen")


def _says(number: int) -> str:
    return f"def handle(request):\n    return {str(number)!r}\n"


def _answers(machine: Machine, text: str) -> float:
    """Returns when a gateway has answered so for the first time."""
    while machine.invoke("seen").text != text:
        pass
    return time.monotonic()


def moves(machines: Machines) -> Iterator[Row]:
    """All requests come to one of two machines that have half of ``max_instances`` each, more than it may run."""
    one, _ = placed(
        machines, "moved", max_instances=MOVED
    )  # a gateway without an instance asks another machine
    own = machines.first.nodes()[one.url.removeprefix("http://")]["id"]

    def share() -> int:
        division = machines.first.client.get("/functions/moved/scaling").json()["division"]
        return 0 if division is None else int(division["shares"].get(own, 0))

    until(lambda: share() == MOVED // 2, within=60, why="the instances are not divided")
    began = time.monotonic()
    with Traffic([one], "moved", clients=4 * MOVED, seconds=0.2):
        for wanted, name in ((MOVED // 2 + 1, "one more"), (MOVED, "all")):
            until(lambda wanted=wanted: share() >= wanted, within=60, why="the share does not move")
            yield figure(
                f"until the machine that is asked may have {name} of {MOVED}", time.monotonic() - began, "s"
            )
    machines.first.client.delete("/functions/moved")


def death(machines: Machines) -> Iterator[Row]:
    """One of two machines that run a function is killed while both, and a gateway, are asked for it."""
    lost, stays = machines.third, machines.second
    machines.first.deploy("lost", COUNTED, min_instances=2)  # one on each
    machines.first.deploy("kept", COUNTED, min_instances=KEPT)
    half = {lost: KEPT // 2, stays: KEPT // 2}
    until(lambda: _held(machines) == half, within=60, why="instances are not on both machines")
    with Traffic([machines.first, stays], "lost", clients=CLIENTS, seconds=0.05) as traffic:
        time.sleep(2)
        before, began = traffic.answers[200], time.monotonic()
        time.sleep(3)
        usual = (traffic.answers[200] - before) / (time.monotonic() - began)
        steady, killed = _Steady(usual * AT_WORK), time.monotonic()
        lost.kill()
        seen: dict[str, float] = {}
        signs: dict[str, Callable[[], bool]] = {
            "dropped": lambda: len(machines.first.nodes()) == 2,
            "replaced": lambda: _held(machines) == {stays: KEPT},
        }
        while len(seen) < len(signs) or not steady.lasts:
            now = time.monotonic()
            if now - killed > 60:
                raise RuntimeError(f"the cluster does not heal: {seen}, {traffic.answers}")
            steady.look(now, traffic.answers[200])
            seen |= {
                name: now - killed for name, seen_now in signs.items() if name not in seen and seen_now()
            }
            time.sleep(LOOK)
    yield figure(
        "requests that failed when a machine was killed", traffic.lost, f"of {traffic.answers.total()}"
    )
    yield figure("until the last of them had failed", traffic.recovered_in(killed), "s")
    yield figure("until as many were answered as before", max(0.0, steady.since - killed), "s")
    yield figure("until the machine was on the list no more", seen["dropped"], "s")
    yield figure("until min_instances were there again", seen["replaced"], "s")
    lost.launch()
    listed(machines)
    for name in ("lost", "kept"):
        machines.first.client.delete(f"/functions/{name}")


def _held(machines: Machines) -> dict[Machine, int]:
    return {machine: count for machine, (count, _) in machines.warm("kept").items()}


class _Steady:
    """Sees since when at least so many requests are answered in each second.

    Attributes:
        since: that time.
        lasts: it is five seconds ago.
    """

    def __init__(self, rate: float) -> None:
        self.since = time.monotonic()
        self.lasts = False
        self._began = self.since
        self._rate = rate
        self._seen: list[tuple[float, int]] = []

    def look(self, now: float, answered: int) -> None:
        """Takes in how many were answered until now."""
        self._seen = [each for each in self._seen if each[0] > now - 1] + [(now, answered)]
        first, count = self._seen[0]
        if now - first > 0.5 and (answered - count) / (now - first) < self._rate:
            self.since = now
        self.lasts = now - max(self.since, self._began) > 5
