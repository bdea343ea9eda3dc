"""The network of a function: what it gets, and what it is refused."""

import pytest

from martlet.drivers import egress
from martlet.drivers.driver import Guarantee, State
from martlet.drivers.networks import Networks
from martlet.errors import Invalid
from martlet.model import Network
from martlet.settings import SystemSettings
from martlet.validation import validated
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


async def test_destinations_are_for_functions_with_a_way_out(platform: Platform):
    document = {"name": "hello", "code": HANDLER, "config": {"egress_to": ["10.0.0.0/8:443"]}}

    problem = assert_problem(await platform.client.post("/functions", json=document), 422, "invalid")

    assert problem["field"] == "config.egress_to"
    assert "this function has none" in problem["detail"]

    document["config"]["network"] = "egress"
    made = await platform.client.post("/functions", json=document)
    assert made.json()["config"]["egress_to"] == ["10.0.0.0/8:443"]


def test_egress_is_the_default_where_it_can_be_given_and_otherwise_none(monkeypatch: pytest.MonkeyPatch):
    held = Guarantee("egress", "", State.HELD, "")
    monkeypatch.setattr(egress, "guarantee", lambda subnet: held)
    assert Networks.of(SystemSettings()).default is Network.EGRESS

    missing = Guarantee(
        "egress", "", State.MISSING, "it lacks the program nft", "install the package nftables"
    )
    monkeypatch.setattr(egress, "guarantee", lambda subnet: missing)
    networks = Networks.of(SystemSettings())
    assert networks.default is Network.NONE
    assert networks.refused[Network.EGRESS].endswith("it lacks the program nft: install the package nftables")
    with pytest.raises(Invalid, match="install the package nftables") as caught:
        Networks.of(SystemSettings(default_network=Network.EGRESS))
    assert caught.value.field == "system.default_network"


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/16", "fd00::/16"])
def test_the_subnet_of_functions_has_a_size_that_works(subnet: str):
    with pytest.raises(Invalid) as caught:
        validated(SystemSettings, {"egress_subnet": subnet}, "system")
    assert caught.value.field == "system.egress_subnet"


def test_the_network_of_the_host_takes_the_operators_word():
    assert Network.HOST in Networks.of(SystemSettings()).refused
    assert Network.HOST not in Networks.of(SystemSettings(allow_host_network=True)).refused


def test_the_operator_who_makes_it_the_default_must_allow_it():
    with pytest.raises(Invalid, match="default_network: host takes allow_host_network: true"):
        validated(SystemSettings, {"default_network": "host"})
