"""A function cannot see, signal, trace or read a process that is not its own."""

import os

import pytest

from tests.security.conftest import undisturbed

NOT_THERE = {"ESRCH", "EPERM", "ENOSYS", "ENOENT"}

pytestmark = pytest.mark.engine("runc", "runsc")


@pytest.fixture(scope="module")
def processes(hostile):
    return hostile("processes")


def test_processes_of_the_host_cannot_be_reached_by_their_numbers(processes, platform):
    neighbours = [instance["pid"] for instance in platform.instances("neighbour")]
    pids = [*neighbours, *platform.children().values(), platform.process.pid, os.getpid()]
    for action, outcomes in processes.attempt("touch", *pids).items():
        assert set(outcomes) <= NOT_THERE, action


def test_signalling_everyone_hits_nobody_else(processes, platform):
    before = {instance["id"] for instance in platform.instances("neighbour")}
    with undisturbed(platform):
        processes.send("signal_everyone")
        processes.send("signal_parent")
    assert before
    assert before <= {instance["id"] for instance in platform.instances("neighbour")}


def test_its_parent_is_outside_and_has_no_number(processes):
    assert processes.attempt("parents")[0] == 0
