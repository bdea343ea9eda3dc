import os

import pytest

from martlet.sandbox import privileges
from martlet.sandbox.script import Script, Slot
from martlet.sandbox.seccomp.policy import Policy
from tests.alone import alone
from tests.processes import status_of

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


def test_who_mounts_code_later_is_another_user_with_that_power_alone_and_then_with_none():
    def become_in_two_steps() -> list[dict[str, str]]:
        os.setgroups([4, 20])
        script = Script(Policy.load().numbers)
        privileges.become_who_mounts(script, Slot(IDENTITY))
        script.run()
        before = status_of()
        privileges.drop_capabilities()
        return [before, status_of()]

    before, after = alone(become_in_two_steps)
    for status in before, after:
        assert status["Uid"].split() == status["Gid"].split() == [str(IDENTITY)] * 4
        assert status["Groups"] == ""
    assert [int(before[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [
        0,
        1 << 21,
        1 << 21,
        0,
    ]
    assert [int(after[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
