"""Wires between machines that are cut, slow, or lose what goes over them: what that costs, and that it heals."""

import time

import pytest

from tests.cluster.conftest import PEER_PORT, PORT, ROUTER, Machines
from tests.cluster.test_several_machines import Asking
from tests.cluster.traffic import COUNTED, Traffic, figures, listed, placed, runs, told
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

LASTING = 32
"""Seconds that a request runs: longer than anybody who believes its machine gone would wait for it."""


def test_a_gateway_that_cannot_reach_a_node_uses_another_until_it_can(machines: Machines) -> None:
    holder, other = placed(machines, "apart")
    with Traffic([machines.first], "apart") as cut, Traffic([other], "apart") as beside:
        began = time.monotonic()
        with machines.cut(machines.first, holder):
            cut.goes_on()
        healed, asked = time.monotonic(), len(cut.requests)
        until(
            lambda: not runs([holder], "apart").keys().isdisjoint(cut.requests[asked:]),
            why="the gateway does not use the node again",
        )
        back = time.monotonic() - healed
    told("gateway and node cut", machines, cut, began, used_again_after=back)
    told("another gateway meanwhile", machines, beside, began)
    assert cut.lost <= cut.clients  # each had one under way
    assert set(cut.codes) <= {"function_crashed"}
    assert beside.lost == 0


def test_nodes_that_etcd_has_forgotten_finish_what_they_run_and_serve_on(machines: Machines) -> None:
    holder, other = placed(machines, "unlisted", timeout=60)
    etcd = machines.etcd.ports
    forgotten = f"{holder.address}:{PORT}"
    lasting = Asking(machines.first, f"unlisted?seconds={LASTING}", once=True)
    with Traffic(machines.all, "unlisted", clients=1) as traffic:
        began = time.monotonic()
        with machines.cut(holder, etcd):
            until(lambda: forgotten not in machines.first.nodes(), why="it is still listed")
            holder.deploy("meanwhile", COUNTED)  # it knows who has the role control
            assert other.invoke("meanwhile").status_code == 200
            with machines.cut(other, etcd):
                until(lambda: len(machines.first.nodes()) == 1, why="the other is still listed")
                traffic.goes_on()
                (answer,) = lasting.end()
        healed = time.monotonic()
        listed(machines)
        back = time.monotonic() - healed
        until(lambda: holder.invoke("meanwhile").status_code == 200, why="it does not hear the news")
        traffic.goes_on()
    told("nodes and etcd cut", machines, traffic, began, listed_again_after=back)
    assert answer.status_code == 200, answer.text
    assert traffic.lost == 0


def test_a_node_without_the_bucket_runs_what_it_has_and_leaves_the_rest_to_others(machines: Machines) -> None:
    holder, other = placed(machines, "stocked", max_instances=4)
    with Traffic([machines.first, holder], "stocked", clients=1) as traffic:
        began = time.monotonic()
        with machines.cut(holder, [machines.s3.port]):
            # Who starts a function that is warm nowhere is drawn: at last it is the one that cannot fetch it.
            for name in (f"fetched-{number}" for number in range(30)):
                asked = time.monotonic()
                machines.first.deploy(name, f"{COUNTED}# {name}")
                for machine in machines.all:
                    assert machine.invoke(name).status_code == 200
                if "package_not_fetched" in holder.log():
                    break
            else:
                pytest.fail("the machine without the bucket was never asked")
            figures("deployed without the bucket", seconds=time.monotonic() - asked)
            traffic.goes_on()
        assert traffic.lost == 0
        healed = time.monotonic()
        with machines.cut_off(other):
            until(lambda: holder.invoke(name).status_code == 200, why="it does not fetch")
        back = time.monotonic() - healed
    listed(machines)
    told("node and bucket cut", machines, traffic, began, fetched_after=back)
    assert traffic.lost <= traffic.clients  # the other had one of each under way
    assert set(traffic.codes) <= {"function_crashed"}


@pytest.mark.rare
def test_a_slow_bucket_makes_the_first_start_slow_and_nothing_else(machines: Machines) -> None:
    holder, other = placed(machines, "quick")
    port = machines.s3.port
    with machines.relayed(holder, ROUTER, port) as one, machines.relayed(other, ROUTER, port) as two:
        one.delay = two.delay = 0.5
        with Traffic([machines.first], "quick") as traffic:
            began = time.monotonic()
            machines.first.deploy("unhurried", f"{COUNTED}# unhurried")
            seconds = time.monotonic() - began
            answer = machines.first.invoke("unhurried")
        told("slow bucket", machines, traffic, began, deployed_in=seconds)
        assert one.passed + two.passed > 0, "nobody has asked the bucket over the slow wires"
    assert answer.status_code == 200
    assert traffic.lost == 0


@pytest.mark.rare
def test_slow_wires_that_lose_packets_lose_no_requests(machines: Machines) -> None:
    holder, _ = placed(machines, "patient")
    with (
        machines.relayed(machines.first, holder.address, PEER_PORT) as link,
        machines.losing(5, machines.first, holder),
        Traffic([machines.first], "patient") as traffic,
    ):
        link.delay = 0.05
        began = time.monotonic()
        traffic.goes_on(60)
        relayed = link.passed
        told("50 ms and 5 % of packets lost", machines, traffic, began)
    assert relayed, "nothing went over the slow wire"
    assert traffic.lost == 0
