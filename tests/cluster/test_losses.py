"""What machines share is lost, in part or altogether, and comes back: etcd's members, and Redis."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.conftest import Machine, Machines
from tests.cluster.traffic import COUNTED, Later, Traffic, figures, listed, placed, runs, told
from tests.system.conftest import until
from tests.system.test_failures import assert_problem

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

BOUND = 30
"""Seconds within which management answers without a store, with what a busy machine adds."""


def deployed(machine: Machine, function: str) -> bool:
    """Deploys a function, where that is possible now."""
    document = {"name": function, "code": COUNTED}
    answer = machine.client.put(f"/functions/{function}", json=document)
    if answer.status_code == 404:
        answer = machine.client.post("/functions", json=document)
    assert answer.status_code in (200, 201, 409, 503), answer.text
    return answer.status_code in (200, 201)


def test_a_member_of_etcd_is_not_missed(machines: Machines) -> None:
    placed(machines, "unmoved")
    leader = machines.etcd.leader()
    with Traffic(machines.all, "unmoved", clients=1) as traffic:
        began = time.monotonic()
        leader.kill()
        until(lambda: deployed(machines.second, "written"), why="nothing can be written")
        wrote = time.monotonic() - began
        assert machines.third.invoke("written").status_code == 200
        traffic.goes_on()
        listed(machines)
    leader.start(machines.etcd.names)
    machines.etcd.wait()
    told("a member of etcd killed", machines, traffic, began, written_after=wrote)
    assert traffic.lost == 0


def test_without_a_majority_of_etcd_functions_go_on_and_management_waits(machines: Machines) -> None:
    placed(machines, "known")
    placed(machines, "queued")
    lost = machines.etcd.members[1:]
    later = Later(machines.all, "queued")
    with Traffic(machines.all, "known", clients=1) as traffic:
        began = time.monotonic()
        for member in lost:
            member.kill()
        try:
            with ThreadPoolExecutor() as pool:
                both = pool.map(assert_management_waits, (machines.first, machines.second))
            assert [*both] == [None, None]
            ready = {machine: machine.client.get("/ready").status_code for machine in machines.all}
            # A machine without control is as good as before for those who ask functions.
            assert ready == {machines.first: 503, machines.second: 200, machines.third: 200}
            later.ask(12)
            states = later.ended()
            traffic.goes_on()
        finally:  # what comes next needs etcd, whatever was found here
            back = time.monotonic()
            for member in lost:
                member.start(machines.etcd.names)
        until(lambda: deployed(machines.second, "known"), why="nothing can be written")
        wrote = time.monotonic() - back
        listed(machines)
        traffic.goes_on()
    machines.etcd.wait()
    told("etcd without majority", machines, traffic, began, later=dict(states), written_after=wrote)
    assert traffic.lost == 0
    assert states == {"succeeded": 12}
    assert not later.refused
    until(lambda: machines.first.client.get("/ready").status_code == 200, why="it is not ready again")


def assert_management_waits(machine: Machine) -> None:
    """What needs the store is refused with a reason, and without long waiting."""
    for ask in (
        lambda: machine.client.post("/functions", json={"name": "new", "code": COUNTED}),
        lambda: machine.client.put("/functions/known", json={"code": COUNTED}),
        lambda: machine.client.delete("/functions/known"),
        lambda: machine.invoke("unknown"),
    ):
        began = time.monotonic()
        assert_problem(ask(), 503, "unavailable")
        assert time.monotonic() - began < BOUND
    known = machine.client.get("/functions/known")
    assert known.status_code == 200, known.text


@pytest.mark.parametrize("away", [0.0, 4.0], ids=["restarted", "away for longer"])
def test_what_redis_has_accepted_is_run_when_it_comes_back(machines: Machines, away: float) -> None:
    function = f"kept-{away:.0f}"
    machines.first.deploy(function, COUNTED, max_instances=2)
    later = Later(machines.all, function)
    later.ask(40, seconds=0.3)
    until(lambda: len(runs(machines.all, function)) >= 4, why="nobody begins")
    began = time.monotonic()
    machines.redis.kill()
    if away:
        more = threading.Thread(target=later.ask, args=(3,))
        more.start()
        time.sleep(away)  # what is waited for is that something takes long
        more.join()
    machines.redis.start()
    later.ask(3)
    states = later.ended()
    # Logs are written a moment after what is logged.
    until(lambda: set(runs(machines.all, function)) >= set(later.accepted), why="some were not run")
    run = runs(machines.all, function)
    figures(
        f"Redis killed, back after {away:.0f} s",
        accepted=len(later.accepted),
        refused=dict(later.refused),
        ended=dict(states),
        runs=sum(run.values()),
        twice=sum(count > 1 for count in run.values()),
        all_ended_after=time.monotonic() - began,
    )
    assert states == {"succeeded": len(later.accepted)}
    assert set(later.refused) <= {503}
