"""Requests to a cluster while something goes wrong, each of them counted: the figures of a fault."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpx2

from tests.cluster.conftest import Machine, Machines
from tests.system.conftest import plain_client, until

COUNTED = """
import time
def handle(request):
    print("runs")
    time.sleep(float(request.query_params.get("seconds", 0)))
    return request.get_header("x-request-id")
"""
"""A function that lets `runs` count how often each request was run."""
LATER = {"prefer": "respond-async"}
PAUSE = 0.1
"""Seconds that a client waits between requests: without, they take the test's machine for themselves."""


class Traffic:
    """Clients of some machines that call a function one request after the other, for as long as this is entered.

    Attributes:
        answers: how often each status came; what broke off without one is 0.
        codes: what the problems were called.
        unsent: how many requests found nobody who took a connection; their clients may go to another machine.
        failed: when each request failed, by the clock that only goes forward.
        slowest: seconds that the slowest request took.
    """

    def __init__(
        self, machines: Sequence[Machine], function: str, clients: int = 2, seconds: float = 0.0
    ) -> None:
        self.function = function
        self.clients = clients * len(machines)
        self.answers: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()
        self.unsent = 0
        self.failed: list[float] = []
        self.slowest = 0.0
        self.requests: list[str] = []
        self._name = secrets.token_hex(4)
        self._path = f"/invoke/{function}?seconds={seconds}"
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(machine,))
            for machine in machines
            for _ in range(clients)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        self.goes_on(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hangs"

    @property
    def lost(self) -> int:
        """How many requests were not answered by the function."""
        return self.answers.total() - self.answers[200]

    def goes_on(self, count: int = 20, within: float = 60) -> None:
        """Waits until so many more requests are answered."""
        wanted = self.answers[200] + count
        until(lambda: self.answers[200] >= wanted, within=within, why=f"nobody is served: {self.answers}")

    def recovered_in(self, began: float) -> float:
        """Returns the seconds from a moment to the end of the last request that failed since."""
        return max((at - began for at in self.failed if at >= began), default=0.0)

    def _ask(self, machine: Machine) -> None:
        key = {"authorization": machine.client.headers["authorization"]}
        with plain_client(machine.url, headers=key) as client:
            while not self._stop.is_set():
                name = f"{self._name}-{len(self.requests)}-{secrets.token_hex(3)}"
                began, status, code = time.monotonic(), 0, "broken off"
                try:
                    answer = client.post(self._path, headers={"x-request-id": name})
                    status = answer.status_code
                    if status != 200:
                        code = answer.json()["code"]
                except httpx2.ConnectError:
                    self.unsent += 1
                    self._stop.wait(PAUSE)
                    continue
                except httpx2.TransportError:
                    pass
                self.requests.append(name)
                self.answers[status] += 1
                now = time.monotonic()
                self.slowest = max(self.slowest, now - began)
                if status != 200:
                    self.codes[code] += 1
                    self.failed.append(now)
                self._stop.wait(PAUSE)


class Later:
    """Asynchronous invocations of a function, by machines in turn."""

    def __init__(self, machines: Sequence[Machine], function: str) -> None:
        self.accepted: list[str] = []
        self.refused: Counter[int] = Counter()
        self._machines = machines
        self._function = function

    def ask(self, count: int, seconds: float = 0.0) -> None:
        """Asks so many more."""
        for number in range(count):
            machine = self._machines[number % len(self._machines)]
            path = f"/invoke/{self._function}?seconds={seconds}"
            answer = machine.client.post(path, headers=LATER)
            if answer.status_code == 202:
                self.accepted.append(answer.json()["id"])
            else:
                self.refused[answer.status_code] += 1

    def ended(self, within: float = 90) -> Counter[str]:
        """Waits until none waits any more; returns how many ended how."""
        client, waiting, states = self._machines[0].client, set(self.accepted), Counter[str]()

        def all_ended() -> bool:
            for each in tuple(waiting):
                answer = client.get(f"/invocations/{each}")
                if answer.status_code == 404:
                    states["forgotten"] += 1
                elif answer.status_code != 200 or answer.json()["state"] == "waiting":
                    return False
                else:
                    states[answer.json()["state"]] += 1
                waiting.discard(each)
            return True

        until(all_ended, within=within, why="asynchronous invocations do not end")
        return states


def placed(machines: Machines, function: str, code: str = COUNTED, **config: Any) -> tuple[Machine, Machine]:
    """Deploys a function; returns the machine that has its instance, and the other one that may."""
    machines.first.deploy(function, code, **config)
    until(lambda: len(machines.warm(function)) == 1, why=f"{function} is not warm on one machine")
    (holder,) = machines.warm(function)
    (other,) = {machines.second, machines.third} - {holder}
    return holder, other


def listed(machines: Machines) -> None:
    """Waits until each machine knows all."""
    until(
        lambda: all(len(each.nodes()) == len(machines.all) for each in machines.all),
        within=60,
        why="the machines do not find each other again",
    )


def shared(machines: Machines, function: str) -> None:
    """Waits until each machine that runs functions may have instances of one. While a machine is away, or its lane
    starts anew, others have its share; until it has one again it refuses calls where the others cannot be reached."""

    def has_shares() -> bool:
        division = (
            machines.first.client.get(f"/functions/{function}/scaling").raise_for_status().json()["division"]
        )
        runners = {node["id"] for node in machines.first.nodes().values() if "node" in node["roles"]}
        return division is None or runners <= division["shares"].keys()

    until(has_shares, why=f"not every machine may have instances of {function}")


def runs(machines: Iterable[Machine], function: str) -> Counter[str]:
    """Returns how often each request was run, by the logs of machines: those that were cut off count too."""
    found: Counter[str] = Counter()
    for machine in machines:
        for file in (machine.data / "logs" / function).glob("*.jsonl*"):
            for line in file.read_text(errors="replace").splitlines():
                with suppress(ValueError):  # a lane that was killed may have left half a line
                    said = json.loads(line)
                    found[said["request_id"]] += said["message"] == "runs"
    return found


def twice(runs: Counter[str], requests: Iterable[str]) -> int:
    """Returns how many of the requests were run more than once."""
    return sum(runs[each] > 1 for each in requests)


def figures(fault: str, **found: Any) -> None:
    """Prints what a fault has cost; ``pytest -rP`` or ``-s`` shows it."""
    told = (
        f"{name.replace('_', ' ')} {each:.1f}"
        if isinstance(each, float)
        else f"{name.replace('_', ' ')} {each}"
        for name, each in found.items()
    )
    print(f"{fault}: {', '.join(told)}")


def told(fault: str, machines: Machines, traffic: Traffic, began: float, **more: Any) -> None:
    """Prints the figures of requests that were under way during a fault."""
    figures(
        fault,
        sent=len(traffic.requests),
        answered=traffic.answers[200],
        lost=traffic.lost,
        codes=dict(traffic.codes),
        unsent=traffic.unsent,
        twice=twice(runs(machines.all, traffic.function), traffic.requests),
        recovered_in=traffic.recovered_in(began),
        slowest=traffic.slowest,
        **more,
    )
