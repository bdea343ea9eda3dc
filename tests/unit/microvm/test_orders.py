"""Forks of a program with threads that knows nothing of it: of Python's interpreter, which stands for QEMU."""

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from martlet.microvm.capture import capture
from martlet.microvm.execution import execute
from martlet.microvm.orders import Orders
from martlet.sandbox import privileges
from martlet.sandbox.script import Script
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from tests.processes import owned, status_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="for x86-64"),
]

POLICY = Policy.load()
SECONDS = 20.0
TRACED = 0x40000000
LISTENER, MAIN, SIDE = 9, 10, 11
LOW, HIGH = 3, 40
"""Its descriptors of events: below and above those that it has not."""
UPWARD = 0x800
PAGE = 4096
PROGRAM = f"""
import ctypes, json, mmap, os, signal, threading
room = mmap.mmap(-1, 8 * {PAGE}, mmap.MAP_PRIVATE)
room[::{PAGE}] = b"x" * 8
LOW, HIGH = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), {HIGH}
os.dup2(os.eventfd(0, os.EFD_NONBLOCK), HIGH)
os.close(4)
known, woken, libm = ["all"], threading.Event(), ctypes.CDLL("libm.so.6")
def answer(descriptor):
    while said := os.read(descriptor, 1000):
        os.write(descriptor, json.dumps(eval(said)).encode())
def beside():
    libm.fesetround({UPWARD})
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    answer({SIDE})
def sleep():
    while woken.wait():
        woken.clear()
        os.write({SIDE}, b'"woken"')
for each in (beside, sleep):
    threading.Thread(target=each, daemon=True).start()
answer({MAIN})
"""
"""Evaluates what it is told, in its first thread and in another; a third one waits to be woken by them."""


@dataclass
class Talk:
    """What leads to two threads of such a program."""

    main: socket.socket
    side: socket.socket

    def ask(self, expression: str) -> Any:
        return _ask(self.main, expression)

    def ask_beside(self, expression: str) -> Any:
        return _ask(self.side, expression)

    def wake(self) -> Any:
        """Returns what the third thread says."""
        self.ask("woken.set()")
        return json.loads(self.side.recv(1000))


def _ask(leads: socket.socket, expression: str) -> Any:
    leads.sendall(expression.encode())
    return json.loads(leads.recv(1000))


class Captured:
    """Such a program, once it forks only, and its forks."""

    def __init__(self) -> None:
        self._held = ExitStack()
        with self._talk() as (talk, theirs):
            leads, listener = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._held.enter_context(leads)
            with listener:
                self.pid = os.fork()
                if self.pid == 0:
                    _become({LISTENER: listener.fileno(), **theirs})
            self._held.callback(end, self.pid)
            assert talk.ask_beside("known") == ["all"]
            assert talk.wake() == "woken"
            self.server = capture(self.pid, SECONDS, leads, LISTENER)

    def close(self) -> None:
        self._held.close()

    @contextmanager
    def forked(self, *scripts: Script) -> Iterator[tuple[int, Talk]]:
        """A fork, which has made the calls of some scripts."""
        orders = Orders(self.server, SECONDS)
        for script in scripts:
            orders.run(script)
        with self.forked_by(orders) as fork:
            yield fork

    @contextmanager
    def forked_by(self, orders: Orders) -> Iterator[tuple[int, Talk]]:
        """A fork by orders to which only the descriptors are added that lead to it."""
        with self._talk() as (talk, theirs):
            for number, descriptor in theirs.items():
                orders.put(descriptor, number)
            pid = orders.fork()
            try:
                yield pid, talk
            finally:
                end(pid)

    @contextmanager
    def _talk(self) -> Iterator[tuple[Talk, dict[int, int]]]:
        with ExitStack() as held:
            pairs = {number: socket.socketpair() for number in (MAIN, SIDE)}
            for each in (each for pair in pairs.values() for each in pair):
                held.enter_context(each)
                each.settimeout(SECONDS)
                os.set_blocking(each.fileno(), True)  # which the program expects
            yield (
                Talk(*(ours for ours, _ in pairs.values())),
                {number: theirs.fileno() for number, (_, theirs) in pairs.items()},
            )


def _become(lent: dict[int, int]) -> NoReturn:
    try:
        execute([sys.executable, "-I", "-S", "-c", PROGRAM], lent)
    finally:
        os._exit(1)


def end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        while os.waitpid(pid, TRACED | os.WNOHANG)[0] != pid:
            time.sleep(0.001)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def descriptors(pid: int) -> dict[int, str]:
    return {int(each.name): os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.fixture
def captured() -> Iterator[Captured]:
    captured = Captured()
    yield captured
    captured.close()


@pytest.fixture
def script() -> Script:
    return Script(POLICY.numbers)


def test_a_fork_goes_on_with_all_threads_where_they_stood(captured: Captured):
    with captured.forked() as (pid, talk):
        assert talk.ask("known") == ["all"]
        assert talk.ask_beside("known") == ["all"]
        assert talk.wake() == "woken"
        assert talk.ask("os.getpid()") == pid
        assert pid != captured.pid
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 3


def test_each_thread_has_its_registers_its_signals_and_its_id(captured: Captured):
    with captured.forked() as (pid, talk):
        seen = "[libm.fegetround(), signal.SIGUSR1 in signal.pthread_sigmask(0, [])]"
        assert talk.ask(seen) == [0, False]
        assert talk.ask_beside(seen) == [UPWARD, True]
        reached = "[signal.pthread_kill(each.ident, 0) for each in threading.enumerate()]"
        assert talk.ask(reached) == [None] * 3
        assert talk.ask_beside("ctypes.CDLL(None).gettid()") in {
            int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)
        }


def test_forks_share_nothing_that_they_write_to(captured: Captured):
    with captured.forked() as (first, talk), captured.forked() as (second, other):
        assert first != second
        talk.ask("known.append('mine')")
        assert talk.ask_beside("known") == ["all", "mine"]
        assert other.ask_beside("known") == ["all"]
        with captured.forked() as (_, third):
            assert third.ask("known") == ["all"]


def test_forks_have_for_themselves_what_they_will_write_to_before_they_go_on(captured: Captured):
    with captured.forked() as (pid, talk):
        at = talk.ask("ctypes.addressof(ctypes.c_char.from_buffer(room))")
        room = {at + number * PAGE for number in range(8)}
        assert not owned(pid) & room
    nowhere = (PAGE, PAGE)
    servers = descriptors(captured.pid)

    captured.server = captured.server.foreseeing([(at, 2 * PAGE), nowhere, (at + 5 * PAGE, PAGE)])

    for _ in range(2):
        with captured.forked() as (pid, talk):
            assert owned(pid) & room == {at, at + PAGE, at + 5 * PAGE}
            assert talk.ask(f"room[::{PAGE}].decode()") == "x" * 8
            assert talk.wake() == "woken"
    assert descriptors(captured.pid) == servers


@pytest.mark.parametrize("tied", [False, True])
def test_a_fork_ends_with_its_parent_if_it_is_to(captured: Captured, tied: bool):
    orders = Orders(captured.server, SECONDS)
    if tied:
        orders.tie()

    with captured.forked_by(orders) as (_, talk):
        wish = "(lambda number: [ctypes.CDLL(None).prctl(2, ctypes.byref(number)), number.value])(ctypes.c_int())"
        assert talk.ask(wish) == [0, signal.SIGKILL if tied else 0]


def test_more_memory_than_a_server_can_foresee_is_foreseen_in_part(captured: Captured):
    with captured.forked() as (_, talk):
        at = talk.ask("ctypes.addressof(ctypes.c_char.from_buffer(room))")

    captured.server = captured.server.foreseeing(
        [(at, PAGE), *[(at + PAGE, 0)] * 100_000, (at + 2 * PAGE, PAGE)]
    )

    with captured.forked() as (pid, talk):
        assert owned(pid) & {at, at + 2 * PAGE} == {at}
        assert talk.wake() == "woken"


@pytest.mark.parametrize("event", ["LOW", "HIGH"])
def test_descriptors_of_events_are_a_forks_own(captured: Captured, event: str):
    read, kind = f"os.eventfd_read({event})", f"[os.get_blocking({event}), os.get_inheritable({event})]"
    with captured.forked() as (_, talk), captured.forked() as (_, other):
        talk.ask(f"os.eventfd_write({event}, 3)")
        other.ask(f"os.eventfd_write({event}, 4)")

        assert talk.ask_beside(read) == 3
        assert other.ask_beside(read) == 4
        assert talk.ask(kind) == [False, event == "HIGH"]


def test_a_fork_has_the_descriptors_of_the_server_and_what_was_put_in_the_place_of_some(captured: Captured):
    servers = descriptors(captured.pid)

    with captured.forked() as (pid, _), captured.forked() as (other, _):
        assert {*descriptors(pid)} == {*servers} - {LISTENER} == {0, 1, 2, LOW, MAIN, SIDE, HIGH}
        changed = {number for number, what in descriptors(pid).items() if what != servers[number]}
        assert changed == {MAIN, SIDE}
        assert descriptors(pid)[MAIN] != descriptors(other)[MAIN]
    assert descriptors(captured.pid) == servers


def test_a_fork_makes_the_calls_of_scripts_first_and_the_server_does_not(captured: Captured, script: Script):
    reader, writer = os.pipe()
    orders = Orders(captured.server, SECONDS)
    script.call("write", orders.lend(writer), b"said", 4)
    privileges.forbid_new_privileges(script)
    Filter(POLICY).load_by(script)
    orders.run(script)

    with captured.forked_by(orders) as (pid, talk):
        assert os.read(reader, 10) == b"said"
        assert (status_of(pid)["NoNewPrivs"], status_of(pid)["Seccomp"]) == ("1", "2")
        assert talk.ask("ctypes.CDLL(None).chroot(b'/')") == -1
        assert talk.wake() == "woken"
    assert (status_of(captured.pid)["NoNewPrivs"], status_of(captured.pid)["Seccomp"]) == ("0", "0")
    os.close(reader)
    os.close(writer)


def test_a_call_that_fails_leaves_no_fork_and_the_server_goes_on(captured: Captured, script: Script):
    before, servers, ours = children(), descriptors(captured.pid), os.listdir("/proc/self/fd")
    script.unmount("/proc/nowhere")

    with pytest.raises(OSError, match="no machine could be forked"), captured.forked(script):
        pass

    (failed,) = children() - before
    _, status = os.waitpid(failed, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert children() == before
    assert descriptors(captured.pid) == servers
    assert os.listdir("/proc/self/fd") == ours
    with captured.forked() as (_, talk):
        assert talk.ask("known") == ["all"]


def test_a_call_whose_failure_is_forgiven_is_none(captured: Captured, script: Script):
    script.call("mkdirat", -100, "/proc", 0o700, forgiven=errno.EEXIST)

    with captured.forked(script) as (_, talk):
        assert talk.ask("known") == ["all"]


def test_more_calls_than_there_is_room_for_are_refused(captured: Captured, script: Script):
    ours = os.listdir("/proc/self/fd")
    for _ in range(250):
        script.call("getpid")

    with pytest.raises(OSError, match="room"), captured.forked(script):
        pass

    assert os.listdir("/proc/self/fd") == ours
    assert captured.server.lives


def test_a_fork_that_comes_too_late_ends(captured: Captured):
    before = children()
    os.kill(captured.pid, signal.SIGSTOP)

    with pytest.raises(OSError, match="in time"):
        Orders(captured.server, 0.1).fork()
    os.kill(captured.pid, signal.SIGCONT)

    deadline = time.monotonic() + SECONDS
    while not (late := children() - before):
        assert time.monotonic() < deadline
    _, status = os.waitpid(late.pop(), 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_a_server_lives_until_it_is_killed(captured: Captured):
    assert captured.server.lives
    with captured.forked() as (_, talk):
        end(captured.pid)

        assert not captured.server.lives
        assert talk.ask("known") == ["all"]
        with pytest.raises(OSError):
            Orders(captured.server, SECONDS).fork()
