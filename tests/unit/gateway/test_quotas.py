"""A limit that holds for several gateways together: real buckets and quotas, on a clock that the test moves."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.gateway.buckets import Buckets, fingerprint
from martlet.gateway.quotas import Quotas
from martlet.model import Role
from martlet.units import EventRate

LIMIT = fingerprint("key", "k")
REPORT_EVERY = 3.0


class Gateways:
    """Several that tell each other every three seconds, one after the other, what they were asked for."""

    def __init__(self, folder, count, rate):
        self.rate = rate
        self.now = 1000.0
        self.let_through = []
        self.view = SimpleNamespace(nodes={}, on_nodes=[])
        self.all = []
        for number in range(count):
            (folder / f"{number}").unlink(missing_ok=True)
            self.view.nodes[f"g{number}"] = SimpleNamespace(id=f"g{number}", roles=(Role.GATEWAY,), asked={})
            self.all.append((Quotas(self.view, f"g{number}"), Buckets(folder / f"{number}")))
        self._due = [(self.now + REPORT_EVERY * (n + 1) / count, n) for n in range(count)]

    def ask(self, number, times):
        quotas, buckets = self.all[number]
        let = 0
        for _ in range(times):
            part = quotas.part(LIMIT, self.rate, self.now)
            let += buckets.take(LIMIT, self.rate, self.now, part) == 0.0
        self.let_through += [self.now] * let
        return let

    def wait(self, seconds):
        until = self.now + seconds
        while self._due[0][0] <= until:
            self.now, number = self._due.pop(0)
            self._due.append((self.now + REPORT_EVERY, number))
            self.view.nodes[f"g{number}"].asked = self.all[number][0].asked(self.now)
            for tell in self.view.on_nodes:
                tell()
        self.now = until


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("buckets")


def test_one_that_gets_all_requests_soon_gives_out_all_of_the_limit(folder):
    gateways = Gateways(folder, 3, EventRate(100, 1))
    let = 0
    for step in range(400):
        count = gateways.ask(0, 20)
        let += count if step >= 200 else 0
        gateways.wait(0.1)
    assert let == pytest.approx(20 * 100, rel=0.05)


def test_all_that_are_asked_give_out_the_limit_together(folder):
    gateways = Gateways(folder, 3, EventRate(100, 1))
    let = 0
    for step in range(400):
        count = sum(gateways.ask(number, 7 * (number + 1)) for number in range(3))
        let += count if step >= 200 else 0
        gateways.wait(0.1)
    assert let == pytest.approx(20 * 100, rel=0.05)


def test_a_small_limit_lets_something_through_at_each(folder):
    gateways = Gateways(folder, 5, EventRate(2, 60))
    assert [gateways.ask(number, 9) for number in range(5)] == [1] * 5


def test_a_gateway_that_has_a_limit_to_itself_gives_out_all_of_it_at_once(folder):
    assert Gateways(folder, 1, EventRate(50, 60)).ask(0, 99) == 50


def test_a_limit_that_nobody_asks_for_any_more_is_forgotten(folder):
    gateways = Gateways(folder, 2, EventRate(50, 60))
    gateways.ask(0, 5)
    gateways.wait(6)
    assert gateways.view.nodes["g0"].asked
    gateways.wait(60)
    assert not gateways.view.nodes["g0"].asked


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([EventRate(20, 1), EventRate(30, 10), EventRate(40, 60)]),
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 60), st.sampled_from([0.0, 0.1, 1.0, 3.0, 7.0, 30.0])),
        max_size=40,
    ),
)
def test_however_requests_move_about_no_window_has_more_than_twice_the_limit_and_what_flows_in(
    folder, rate, count, steps
):
    gateways = Gateways(folder, count, rate)
    for number, times, pause in steps:
        gateways.ask(number % count, times)
        gateways.wait(pause)
    let = gateways.let_through
    for first, begin in enumerate(let):
        for last in range(first, len(let), 7):
            periods = (let[last] - begin) / rate.seconds
            assert last - first + 1 <= (2 + periods) * rate.events + count * (1 + periods)
