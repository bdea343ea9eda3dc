"""``python -m tests.soak [--minutes 10] [--seed 1]``: a cluster under load while it is changed, cut and killed in turn.

At the end it prints what that has cost, and fails if a request was lost that was not under way on what was killed or
cut, if an asynchronous invocation was lost, or if anything is left over.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Machine, Machines, making_machines
from tests.cluster.kills import kill_one
from tests.cluster.traffic import COUNTED, Later, Traffic, listed, runs, shared, twice
from tests.system.conftest import until
from tests.system.test_kills import descendants, inventory, members

FUNCTIONS = ("soak", "later", "changing")
CUT_SECONDS = 4.0
"""How long a wire is cut; every third time long enough for etcd to forget the machine."""
KINDS = ("cell", "cell", "zygote", "forkserver", "lane", "supervisor")
SETTLED = ("processes", "namespaces", "cgroups", "links", "mounts", "directories")
"""What of a machine must be after everything as it was before."""


class Soak:
    """Disturbs a cluster.

    Attributes:
        done: how often each disturbance was made.
    """

    def __init__(self, machines: Machines, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._machines = machines
        self._chance = random.Random(seed)
        self._turns: list[Callable[[], str]] = []
        self._deploys = 0

    def disturb(self) -> str:
        """Does one thing, another each time; returns what it was once the machines are what they were again."""
        if not self._turns:
            self._turns = [self._kill] * 4 + [self._cut_wire, self._cut_from_etcd, self._cut_from_bucket]
            self._turns += [self._lose_member, self._restart_redis]
            self._chance.shuffle(self._turns)
        what = self._turns.pop()()
        self.done[what] += 1
        listed(self._machines)
        shared(self._machines, "soak")
        return what

    def change(self) -> None:
        """Deploys a function anew, through any machine."""
        machine = self._chance.choice(self._machines.all)
        self._deploys += 1
        code = f"def handle(request):\n    return {str(self._deploys)!r}\n"
        document = {"name": "changing", "code": code}
        answer = machine.client.put("/functions/changing", json=document)
        if answer.status_code == 404:
            answer = machine.client.post("/functions", json=document)
        self.done[f"deploy answered {answer.status_code}"] += 1
        if answer.status_code in (200, 201):
            expected = str(self._deploys)
            until(
                lambda: all(each.invoke("changing").text == expected for each in self._machines.all),
                within=30,
                why="a deploy is not seen everywhere",
            )

    def _kill(self) -> str:
        machine = self._chance.choice(self._machines.all)
        runs_functions = machine is not self._machines.first
        assert machine.process is not None
        there = members(
            machine, descendants(machine.process.pid)
        )  # a forkserver is back only when it is needed
        kinds = KINDS if runs_functions else ("lane", "control", "supervisor")
        kind = self._chance.choice([kind for kind in kinds if there[kind]])
        kill_one(machine, kind)
        return f"killed a {kind}"

    def _cut_wire(self) -> str:
        one, other = self._chance.sample(self._machines.all, 2)
        return self._cut("cut two machines", one, other)

    def _cut_from_etcd(self) -> str:
        return self._cut("cut a machine from etcd", self._any(), self._machines.etcd.ports)

    def _cut_from_bucket(self) -> str:
        return self._cut("cut a machine from the bucket", self._any(), [self._machines.s3.port])

    def _cut(self, what: str, machine: Machine, other: Any) -> str:
        with self._machines.cut(machine, other):
            time.sleep(CUT_SECONDS * self._chance.choice((1, 1, 4)))
        return what

    def _lose_member(self) -> str:
        member = self._chance.choice(self._machines.etcd.members)
        member.kill()
        time.sleep(CUT_SECONDS)
        member.start(self._machines.etcd.names)
        self._machines.etcd.wait()
        return "killed a member of etcd"

    def _restart_redis(self) -> str:
        self._machines.redis.kill()
        self._machines.redis.start()
        return "killed Redis"

    def _any(self) -> Machine:
        return self._chance.choice(self._machines.all)


def soak(machines: Machines, minutes: float, seed: int) -> list[str]:
    """Returns what was found wrong, having printed the figures."""
    before = {machine: settled(machine) for machine in machines.all}
    for name in FUNCTIONS:
        machines.first.deploy(name, COUNTED, max_instances=2)
    disturbing, later = Soak(machines, seed), Later(machines.all, "later")
    end = time.monotonic() + minutes * 60
    costs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with Traffic(machines.all, "soak", clients=2) as traffic:
        while time.monotonic() < end:
            later.ask(6, seconds=0.1)
            disturbing.change()
            before_it = traffic.codes.copy()
            what = disturbing.disturb()
            traffic.goes_on(10)
            costs[what] += traffic.codes - before_it
        states = later.ended(within=180)
    repeated = twice(runs(machines.all, "soak"), traffic.requests)
    for name in FUNCTIONS:
        assert machines.first.client.delete(f"/functions/{name}").status_code == 204
    disturbances = sum(count for what, count in disturbing.done.items() if not what.startswith("deploy"))
    for what, count in sorted(disturbing.done.items()):
        print(f"  {what}: {count}{f', lost {dict(costs[what])}' if costs[what] else ''}")
    print(
        f"requests: {len(traffic.requests)} sent, {traffic.answers[200]} answered, {traffic.lost} lost",
        end=" ",
    )
    print(
        f"({dict(traffic.codes)}), {traffic.unsent} found nobody, {repeated} run twice, slowest {traffic.slowest:.1f} s"
    )
    print(f"later: {len(later.accepted)} accepted, {dict(states)}, refused {dict(later.refused)}")
    wrong = []
    if traffic.lost > disturbances * traffic.clients or set(traffic.codes) - {
        "function_crashed",
        "broken off",
    }:
        wrong.append("requests were lost that were not under way on what was killed or cut")
    if states != {"succeeded": len(later.accepted)}:
        wrong.append("asynchronous invocations were lost")
    if repeated:
        wrong.append("requests were run twice")
    for machine in machines.all:
        left = until_settled(machine, before[machine])
        if left:
            wrong.append(f"machine {machine.address} has something left over: {left}")
    return wrong


def held(machine: Machine) -> dict[str, Any]:
    """Returns what a machine holds of what could leak."""
    found = inventory(machine)
    del found["processes"]["forkserver"]  # one that was killed is back when it is needed
    return {name: found[name] for name in SETTLED}


def settled(machine: Machine) -> dict[str, Any]:
    """Returns what a machine holds once that does not change any more."""
    last = [held(machine)]

    def unchanged() -> bool:
        time.sleep(1)
        last.append(held(machine))
        return last[-1] == last[-2]

    until(unchanged, within=60, why="the machine does not settle")
    return last[-1]


def until_settled(machine: Machine, before: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns what a machine holds that it did not before, after a time for it to go; first what there was then."""
    end = time.monotonic() + 90
    while True:
        now = held(machine)
        left = {name: (before[name], now[name]) for name in SETTLED if now[name] != before[name]}
        if not left or time.monotonic() > end:
            return left
        time.sleep(1)


def main() -> int:
    """Returns the exit status: 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument(
        "--seed", type=int, default=None, help="of what happens when; printed, to have it again"
    )
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"{options.minutes:g} minutes, --seed {seed}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="martlet-soak-")))
        machines = stack.enter_context(making_machines(folder))
        stack.enter_context(machines.router.entered())
        try:
            wrong = soak(machines, options.minutes, seed)
        except (AssertionError, pytest.fail.Exception) as error:
            wrong = [str(error)]
        if wrong:
            for machine in machines.all:
                print(f"--- the log of {machine.address}\n{machine.log()[-4000:]}", file=sys.stderr)
    for each in wrong:
        print(f"WRONG: {each}")
    print("Something was lost or left." if wrong else "Nothing was lost, nothing is left.")
    return bool(wrong)


if __name__ == "__main__":
    assert os.geteuid() == 0, "it makes machines of network namespaces: run it as root"
    sys.exit(main())
