"""Limits hold for all machines together: instances, and requests of a key."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.cluster.conftest import Machine, Machines
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

WAITS = """
import time
def handle(request):
    time.sleep(0.2)
    return "done"
"""
QUICK = "def handle(request):\n    return 1\n"
MOST = 4
RATE = 30


def held(machines: Machines, function: str) -> dict[str, int]:
    """Returns how many instances of a function's first revision each machine says that it has."""
    return {machine.address: count for machine, (count, _) in machines.warm(function).items()}


def division(machines: Machines, function: str) -> dict[str, dict[str, int]]:
    """Returns how ``max_instances`` of a function is divided, by machines."""
    scaling = machines.first.client.get(f"/functions/{function}/scaling").json()
    found: dict[str, dict[str, int]] = scaling["division"]
    return found


def test_max_instances_holds_over_all_machines_and_goes_where_the_requests_are(machines: Machines) -> None:
    machines.first.deploy("bounded", WAITS, max_instances=MOST)
    seen: list[dict[str, int]] = []

    def ask_through(asked: Sequence[Machine], enough: Callable[[dict[str, int]], bool]) -> None:
        def ask_a_while() -> bool:
            each = [asked[number % len(asked)] for number in range(48)]
            statuses = pool.map(lambda machine: machine.invoke("bounded").status_code, each)
            assert set(statuses) == {200}
            seen.append(held(machines, "bounded"))
            return enough(seen[-1])

        until(ask_a_while, within=120, why=f"they are not where the requests are: {seen}")

    with ThreadPoolExecutor(16) as pool:
        ask_through(machines.all, lambda held: sum(held.values()) == MOST)
        (busiest,) = (
            each for each in machines.all if each.address == max(seen[-1], key=seen[-1].__getitem__)
        )
        ask_through([busiest], lambda held: held == {busiest.address: MOST})
        (idle,) = {machines.second, machines.third} - {busiest}
        ask_through([idle], lambda held: held == {idle.address: MOST})  # none of its requests ran there
    assert max(sum(each.values()) for each in seen) <= MOST, seen
    assert sum(division(machines, "bounded")["wanted"].values()) > 1, "all of them were in use"
    # Nobody has a share that is on its way: nothing is asked any more, and every home is due one.
    until(lambda: sum(division(machines, "bounded")["shares"].values()) == MOST, why="a share is lost")


def test_the_rate_limit_of_a_key_is_divided_over_the_gateways(machines: Machines) -> None:
    machines.first.deploy("limited", QUICK)
    made = machines.first.client.post(
        "/keys", json={"name": "limited", "scopes": ["invoke"], "rate_limit": f"{RATE}/min"}
    ).json()
    clients = [machine.client_for(made["secret"]) for machine in machines.all]
    began = time.monotonic()
    let = [ask_until_refused(client) for client in clients]
    assert all(let), let
    until(
        lambda: any(node["asked"] for node in machines.first.nodes().values()),
        why="no gateway said what it was asked for",
    )
    again = [
        ask_until_refused(client) for client in clients
    ]  # whatever their parts are now: there are no tokens left
    minutes = (time.monotonic() - began) / 60
    assert sum(let) + sum(again) <= RATE + (RATE + len(clients)) * minutes + len(clients)


def ask_until_refused(client: httpx2.Client) -> int:
    """Returns how many requests were let in."""
    for count in range(RATE * 2):
        if client.post("/invoke/limited").status_code == 429:
            return count
    return RATE * 2


def test_min_instances_are_spread_and_kept_when_a_machine_dies(machines: Machines) -> None:
    machines.first.deploy("kept", QUICK, min_instances=3)
    runners = (machines.second, machines.third)
    until(lambda: sorted(held(machines, "kept").values()) == [1, 2], why="they are not spread")
    machines.third.kill()
    until(lambda: held(machines, "kept") == {machines.second.address: 3}, why="they are not replaced")
    machines.third.launch()
    until(lambda: len(machines.first.nodes()) == 3, why="the machine did not come back")
    until(lambda: len(held(machines, "kept")) == len(runners), why="it keeps none of them")
