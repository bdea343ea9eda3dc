import os

import pytest

from martlet.sandbox import privileges
from tests.alone import alone, status_of

pytestmark = pytest.mark.root

IDENTITY = 2_000_123_456


def become() -> dict[str, str]:
    os.setgroups([4, 20])
    last = privileges.last_capability()
    privileges.forbid_new_privileges()
    privileges.empty_bounding_set(last)
    privileges.become(IDENTITY)
    return status_of()


def test_user_and_group_are_the_new_ones_in_every_sense():
    status = alone(become)

    assert status["Uid"].split() == [str(IDENTITY)] * 4
    assert status["Gid"].split() == [str(IDENTITY)] * 4
    assert status["Groups"] == ""


def test_no_capability_is_left_in_any_set():
    status = alone(become)

    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"


def test_there_is_no_way_back():
    def try_back() -> bool:
        become()
        try:
            os.setuid(0)
        except PermissionError:
            return True
        return False

    assert alone(try_back)


def test_capabilities_go_even_where_the_user_stays():
    def stay() -> dict[str, str]:
        privileges.become(0)
        return status_of()

    assert int(alone(stay)["CapEff"], 16) == 0
