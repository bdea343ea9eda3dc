"""The network of a function: what it gets, and what it is refused."""

import pytest

from martlet.config import SystemSettings, validated
from martlet.drivers.networks import Networks
from martlet.errors import Invalid
from martlet.model import Network
from tests.unit.control.conftest import HANDLER, Platform, assert_problem

pytestmark = pytest.mark.anyio


async def test_a_function_keeps_the_default_that_it_was_deployed_with(platform: Platform):
    made = await platform.create()
    await platform.stop()
    platform.networks = Networks(Network.EGRESS, {})
    await platform.start()

    changed = await platform.client.put("/functions/hello", json={"config": {"timeout": 3}})

    assert made["config"]["network"] == "none"
    assert changed.json()["config"]["network"] == "none"
    assert (await platform.create("newer"))["config"]["network"] == "egress"


async def test_a_network_that_is_not_given_here_is_refused_with_the_reason(platform: Platform):
    document = {"name": "hello", "code": HANDLER, "config": {"network": "host"}}

    problem = assert_problem(await platform.client.post("/functions", json=document), 422, "invalid")

    assert problem["field"] == "config.network"
    assert problem["detail"] == "config.network: not here"
    assert platform.lanes[0].loaded == platform.lanes[1].loaded == []


def test_the_network_of_the_host_takes_the_operators_word():
    assert Network.HOST in Networks.of(SystemSettings()).refused
    assert Network.HOST not in Networks.of(SystemSettings(allow_host_network=True)).refused


def test_the_operator_who_makes_it_the_default_must_allow_it():
    with pytest.raises(Invalid, match="default_network: host takes allow_host_network: true"):
        validated(SystemSettings, {"default_network": "host"})
