"""A thousand first requests at once start what concurrency asks for, not a thousand instances."""

from collections.abc import Callable

import pytest

from tests.crowd import MANY, ask_at_once, deploy_cold, starts
from tests.system.conftest import Platform, until

pytestmark = [pytest.mark.slow, pytest.mark.root]
LANES = 2


@pytest.fixture(scope="module")
def platform(make_platform: Callable[..., Platform]) -> Platform:
    """One with two lanes, which the kernel spreads the connections over."""
    platform = make_platform(
        lanes=LANES, rate_limit_per_client="off", disable_container=True, disable_microvm=True
    )
    platform.start()
    return platform


@pytest.mark.parametrize(
    ("concurrency", "seconds", "max_instances", "most"),
    [
        # One more where the requests of each lane do not fill its last instance.
        pytest.param(100, 1.0, MANY, MANY // 100 + LANES - 1, id="an instance for each hundred"),
        pytest.param(MANY, 1.0, MANY, LANES, id="one for all of a lane"),
        pytest.param(1, 0.01, 8, 8, id="max_instances, where each runs one at a time"),
    ],
)
def test_a_thousand_first_requests_start_what_concurrency_asks_for(
    platform: Platform, concurrency: int, seconds: float, max_instances: int, most: int
) -> None:
    name = f"crowd-{concurrency}"
    deploy_cold(platform, name, seconds, concurrency=concurrency, max_instances=max_instances)
    answered = ask_at_once([platform], name)
    assert answered.statuses == {200: MANY}
    assert answered.at_once <= concurrency
    until(lambda: starts([platform], name) >= len(answered.instances), why="starts are not in the log")
    assert 0 < starts([platform], name) <= most
