"""A thousand first requests at once, through all gateways, start what concurrency asks for."""

from math import ceil

import pytest

from tests.cluster.conftest import Machines
from tests.cluster.traffic import figures
from tests.crowd import MANY, ask_at_once, deploy_cold, starts
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]
NODES = 2
UTILIZATION = 0.7
"""Of the instances that the leader has ready: `autoscale_utilization`."""


@pytest.mark.parametrize(
    ("concurrency", "seconds", "max_instances", "most"),
    [
        # As many as the leader wants ready, and as many again where it has them moved to where the requests came to.
        pytest.param(
            100, 1.0, MANY, NODES * ceil(MANY / 100 / UTILIZATION), id="an instance for each hundred"
        ),
        pytest.param(1, 0.01, 8, NODES * 8, id="max_instances, where each runs one at a time"),
    ],
)
def test_a_thousand_first_requests_through_three_gateways_start_what_concurrency_asks_for(
    machines: Machines, concurrency: int, seconds: float, max_instances: int, most: int
) -> None:
    name = f"crowd-{concurrency}"
    deploy_cold(machines.first, name, seconds, concurrency=concurrency, max_instances=max_instances)
    until(lambda: not machines.warm(name), why="they do not hear that its instance has ended")
    answered = ask_at_once(machines.all, name)
    until(lambda: starts(machines.all, name) >= len(answered.instances), why="starts are not in the log")
    started = starts(machines.all, name)
    figures(
        f"{MANY} first requests, concurrency {concurrency}",
        answers=dict(answered.statuses),
        instances_started=started,
        at_once=answered.at_once,
    )
    assert answered.statuses == {200: MANY}
    assert answered.at_once <= concurrency
    assert 0 < started <= most
