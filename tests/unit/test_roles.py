"""What a machine does is said in one setting, and what it leaves out is another machine's."""

import pytest

from martlet.errors import Invalid
from martlet.model import Role
from martlet.settings import Settings
from martlet.validation import validated

SHARED = "etcd://10.0.0.1:2379"


def settings(roles, **system):
    shared = {"store": SHARED, "peer_address": "10.0.0.2:8001"}
    return validated(Settings, {"system": {"roles": roles, **shared, **system}})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("all", tuple(Role)),
        ("gateway", (Role.GATEWAY,)),
        ("control, gateway", (Role.GATEWAY, Role.CONTROL)),
        (["node"], (Role.NODE,)),
    ],
)
def test_roles_are_written_as_words_or_as_a_list(written, meant):
    assert settings(written).system.roles == meant


def test_one_machine_does_all_by_default():
    assert Settings().system.roles == tuple(Role)


@pytest.mark.parametrize("written", ["worker", "gateway,,node", "", [], 3, [7]])
def test_what_is_no_role_is_refused_by_name(written):
    with pytest.raises(Invalid) as error:
        settings(written)
    assert error.value.field == "system.roles"


def test_some_roles_alone_need_a_store_that_the_others_share():
    with pytest.raises(Invalid, match=r"no machine would be gateway or control or builder: .*store: etcd://"):
        settings("node", store="sqlite")


def test_who_takes_no_requests_and_runs_nothing_has_one_lane():
    assert settings("control", lanes=4).lane_count == 1
    assert settings("node", lanes=4).lane_count == 4


def test_what_takes_no_requests_must_be_reached_by_others():
    with pytest.raises(Invalid, match="set peer_address"):
        settings("node", peer_address=None)
    assert settings("gateway", peer_address=None).system.clustered


@pytest.mark.parametrize("written", ["10.0.0.1", "10.0.0.1:0", "http://10.0.0.1:1", "[::1:8001", 8001])
def test_what_is_no_address_is_refused_with_one_to_write(written):
    with pytest.raises(Invalid, match=r"HOST:PORT, such as 10\.0\.0\.1:8001"):
        settings("all", peer_address=written)


@pytest.mark.parametrize("written", ["10.0.0.1:8001", "[fd00::1]:8001", "one.example.org:8001"])
def test_an_address_is_written_as_it_was_read(written):
    assert str(settings("all", peer_address=written).system.peer_address) == written
