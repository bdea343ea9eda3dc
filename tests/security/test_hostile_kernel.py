"""What a function asks the kernel for beyond ordinary work is refused, whatever the kernel itself would allow."""

import errno
import os

import pytest

from tests.conftest import require
from tests.security.conftest import GVISOR, undisturbed
from tests.security.test_hostile_exhaustion import inside

REFUSED = {"EPERM", "EACCES", "ENOSYS", "EROFS"}
WITHOUT_EFFECT = {"raise priority", "real time"}
"""What gVisor need not refuse: its priorities mean nothing to the machine, as the test of these shows."""

pytestmark = pytest.mark.engine("runc")


@pytest.fixture(scope="module")
def kernel(hostile):
    return hostile("kernel")


@pytest.mark.parametrize("group", ["mounting", "identity", "machine", "broken before", "sockets"])
def test_the_kernel_refuses(kernel, platform, rung, group):
    with undisturbed(platform):
        outcomes = kernel.attempt("try_all", group)
    granted = {name for name, said in outcomes.items() if said not in REFUSED}
    assert granted <= (WITHOUT_EFFECT if rung == GVISOR else set())


def test_no_process_gets_precedence_on_the_machine(kernel):
    kernel.attempt("user")
    before = min(priorities(kernel))
    kernel.attempt("raise_own_priority")
    assert min(priorities(kernel)) >= before
    assert {os.sched_getscheduler(pid) for pid in inside(kernel.pids)} == {os.SCHED_OTHER}


def priorities(function):
    """The niceness of all that runs in its instances, as the machine knows it."""
    return {os.getpriority(os.PRIO_PROCESS, pid) for pid in inside(function.pids)}


def test_setuid_programs_run_as_the_function(kernel, rung):
    if rung == "microvm":  # a guest has none
        assert kernel.attempt("find_setuid_programs") == []
        return
    users = kernel.attempt("run_setuid_programs")
    require(users, "a setuid program")
    assert users == [kernel.attempt("user")]


def test_no_network_device_can_be_changed(kernel):
    assert kernel.attempt("add_network_address") in (errno.EPERM, errno.EACCES)
