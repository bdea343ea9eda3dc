import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NoReturn

import pytest

from martlet.sandbox import namespaces
from martlet.sandbox.successor import Successor
from tests.alone import alone

MESSAGE = {"word": "hello"}


class Forks:
    """Forks, and notes what it has forked."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def __call__(self, child: Callable[[], NoReturn]) -> int:
        self.pids.append(namespaces.fork(child))
        return self.pids[-1]


def ends_with(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def say(message: dict[str, Any], descriptors: list[int]) -> NoReturn:
    os.write(descriptors[0], message["word"].encode())
    os._exit(7)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with closing(os.fdopen(reader, "rb")), closing(os.fdopen(writer, "wb")):
        yield reader, writer


def nothing() -> None:
    """Begins with nothing."""


def test_it_becomes_what_it_is_told_with_what_it_is_given(pipe: tuple[int, int]):
    forks = Forks()
    successor = Successor(forks, nothing, nothing, say)
    successor.make()

    assert successor.appoint(MESSAGE, [pipe[1]]) == forks.pids[0]

    assert os.read(pipe[0], 100) == b"hello"
    assert ends_with(forks.pids[0]) == 7


def test_it_begins_before_it_is_told(pipe: tuple[int, int]):
    forks = Forks()
    successor = Successor(forks, lambda: os.write(pipe[1], b"begun") and None, nothing, say)

    successor.make()

    assert os.read(pipe[0], 100) == b"begun"
    successor.dismiss()
    assert ends_with(forks.pids[0]) == -signal.SIGKILL


@pytest.mark.parametrize("waits", [True, False])
def test_it_practises_where_nobody_needs_it_yet(pipe: tuple[int, int], waits: bool):
    forks = Forks()
    successor = Successor(
        forks, lambda: time.sleep(0.05), lambda: os.write(pipe[1], b"practised, ") and None, say
    )
    successor.make()

    if waits:
        assert os.read(pipe[0], 100) == b"practised, "
    successor.appoint(MESSAGE, [pipe[1]])

    assert os.read(pipe[0], 100) == b"hello"
    assert ends_with(forks.pids[0]) == 7


def test_it_is_wanted_where_there_is_none():
    forks = Forks()
    successor = Successor(forks, nothing, nothing, say)
    assert successor.wanted
    assert successor.appoint(MESSAGE, []) is None

    successor.make()

    assert not successor.wanted
    assert successor.appoint(MESSAGE, [0]) == forks.pids[0]
    assert successor.wanted
    ends_with(forks.pids[0])


def test_one_that_was_dismissed_is_not_appointed_and_another_is_wanted():
    forks = Forks()
    successor = Successor(forks, nothing, nothing, say)
    successor.make()

    successor.dismiss()

    assert ends_with(forks.pids[0]) == -signal.SIGKILL
    assert successor.wanted
    assert successor.appoint(MESSAGE, []) is None


@pytest.mark.parametrize("heard", [True, False])
def test_one_that_was_killed_is_not_appointed(heard: bool):
    forks = Forks()
    successor = Successor(forks, nothing, nothing, say)
    successor.make()
    os.kill(forks.pids[0], signal.SIGKILL)
    code = ends_with(forks.pids[0])

    if heard:
        successor.ended(forks.pids[0], code)
        assert successor.wanted

    assert successor.appoint(MESSAGE, []) is None
    assert successor.wanted


def test_one_that_cannot_begin_is_not_appointed(capfd: pytest.CaptureFixture[str]):
    def refuse() -> None:
        raise OSError("no namespaces")

    forks = Forks()
    successor = Successor(forks, refuse, nothing, say)
    successor.make()

    successor.ended(forks.pids[0], ends_with(forks.pids[0]))
    assert not successor.wanted
    assert successor.appoint(MESSAGE, []) is None
    assert successor.wanted
    assert "no namespaces" in capfd.readouterr().err


def test_where_none_can_be_forked_there_is_none_and_nothing_is_left():
    def refuse(child: object) -> int:
        raise BlockingIOError("too many processes")

    successor = Successor(refuse, nothing, nothing, say)
    before = os.listdir("/proc/self/fd")

    successor.make()

    assert successor.appoint(MESSAGE, []) is None
    assert os.listdir("/proc/self/fd") == before


def test_it_ends_with_its_parent():
    reader, writer = os.pipe()

    alone(lambda: Successor(Forks(), nothing, nothing, say).make())

    os.close(writer)
    with open(reader, "rb") as inherited:
        assert inherited.read() == b""  # which it had open for writing as long as it lived
