import os
import signal
import time

import pytest

from martlet.sandbox.lifeline import Lifeline
from tests.processes import lives


def is_gone(pid: int) -> bool:
    """Whether the process ends within a deadline. Its parent is dead, so nobody here can wait for it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not lives(pid):
            return True
        time.sleep(0.005)
    return False


def family(change_user: bool) -> tuple[int, int]:
    """Forks a parent, and from it a child that holds on to it. Returns their process ids."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        lifeline = Lifeline()
        child = os.fork()
        if child == 0:
            lifeline.keep_reader()
            lifeline.hold()
            if change_user:
                os.setresuid(65534, 65534, 65534)
                lifeline.hold()
            lifeline.release()
            os.write(writer, str(os.getpid()).encode())
        while True:
            signal.pause()
    return parent, int(os.read(reader, 10))


@pytest.mark.parametrize(
    "change_user",
    [pytest.param(False, id="as-it-was"), pytest.param(True, id="as-somebody-else", marks=pytest.mark.root)],
)
def test_a_child_dies_with_its_parent(change_user: bool):
    parent, child = family(change_user)

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    assert is_gone(child)


def test_a_child_whose_parent_is_dead_already_ends_when_it_holds_on():
    reader, writer = os.pipe()
    orphaned, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        lifeline = Lifeline()
        if os.fork() == 0:
            lifeline.keep_reader()
            os.close(reader)
            os.close(tell)
            os.read(orphaned, 1)
            lifeline.hold()
            os.write(writer, b"still here")
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(writer)

    os.close(tell)

    assert os.read(reader, 10) == b""
