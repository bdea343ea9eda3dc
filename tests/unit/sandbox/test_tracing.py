"""A program of somebody else's, with threads, as it is looked into from outside."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.tracing import Stopped
from tests.alone import alone

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="for x86-64"),
]

CALLS = Policy.load().numbers
SECONDS = 20.0
WAITS = """
import ctypes, os, signal, threading
known = ctypes.create_string_buffer(b"what it knows, and nobody else")
def blocking():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.read(0, 1)
threading.Thread(target=blocking, daemon=True).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(ctypes.addressof(known), flush=True)
threading.Event().wait()
"""
GIVES_UP = """
import signal
print(0, flush=True)
signal.sigtimedwait([signal.SIGUSR2], 600)
"""
"""Waits in a call that the kernel does not make again."""
WAKES_UP = """
import ctypes, signal, threading
libc = ctypes.CDLL(None)
threading.Thread(target=lambda: libc.poll(None, 0, 600_000), daemon=True).start()
print(0, flush=True)
signal.sigtimedwait([signal.SIGUSR2], 0.5)
threading.Event().wait()
"""
"""Waits in such a call for a while only; one of its threads all the time, in another one that has an end."""
COMPUTES = """
import os, threading
def compute():
    while True: pass
threading.Thread(target=os.read, args=(0, 1), daemon=True).start()
threading.Thread(target=compute, daemon=True).start()
print(0, flush=True)
threading.Event().wait()
"""
READ, WRITE, EXECUTE, PRIVATE_ANONYMOUS = 1, 2, 4, 0x22
PAGE = 4096
REST_AT = 0x100
WRITES = "b801000000 bf01000000 488d3510000000 ba01000000 0f05" + "b822000000 0f05 ebf7"
"""Writes the byte after it to the output, then pauses for ever."""

Child = subprocess.Popen[bytes]


@pytest.fixture
def start() -> Iterator[Callable[[str], tuple[Child, int]]]:
    """Starts a program. Returns it, and the address that it has printed; it ends with the test."""
    children: list[Child] = []

    def run(program: str) -> tuple[Child, int]:
        command = [sys.executable, "-I", "-S", "-c", program]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        return child, int(child.stdout.readline())

    yield run
    for child in children:
        child.kill()
        while child.poll() is None:  # its threads, which are traced, are heard of one by one
            os.waitpid(-1, 0x40000000 | os.WNOHANG)
        child.__exit__(None, None, None)


def rests(child: Child) -> Stopped:
    return Stopped.at_rest(child.pid, SECONDS)


def make_room(stopped: Stopped, rights: int) -> int:
    return stopped.call(CALLS["mmap"], 0, PAGE, rights, PRIVATE_ANONYMOUS, -1, 0)


def test_a_program_whose_threads_wait_stands_still(start):
    child, _ = start(WAITS)

    stopped = rests(child)

    tasks = Path(f"/proc/{child.pid}/task")
    assert [thread.id for thread in stopped.threads] == sorted(int(task.name) for task in tasks.iterdir())
    assert stopped.threads[0].id == child.pid
    assert len(stopped.threads) == 3
    assert all(thread.waits for thread in stopped.threads)
    assert ["\nState:\tt" in (task / "status").read_text() for task in tasks.iterdir()] == [True] * 3


def test_it_is_known_which_signals_a_thread_blocks(start):
    child, _ = start(WAITS)

    blocked = [thread.blocked >> signal.SIGUSR1 - 1 & 1 for thread in rests(child).threads]

    assert sorted(blocked) == [0, 0, 1]
    assert blocked[0] == 0


def test_a_program_with_a_thread_that_computes_does_not_come_to_rest(start):
    child, _ = start(COMPUTES)

    with pytest.raises(OSError, match="does not come to rest"):
        Stopped.at_rest(child.pid, 0.3)

    assert "\nTracerPid:\t0\n" in Path(f"/proc/{child.pid}/status").read_text()


def test_a_thread_that_is_stopped_while_it_computes_is_told_from_one_that_waits(start):
    child, _ = start(COMPUTES)

    assert not all(thread.waits for thread in Stopped(child.pid).threads)


def test_a_program_is_refused_that_has_lost_what_it_waited_for(start):
    child, _ = start(GIVES_UP)

    with pytest.raises(OSError, match="does not come to rest"):
        Stopped.at_rest(child.pid, 0.3)


def test_a_program_that_is_about_to_rest_is_waited_for(start):
    child, _ = start(WAKES_UP)

    stopped = rests(child)

    assert all(thread.waits for thread in stopped.threads)
    assert len(stopped.threads) == 2


def test_its_first_thread_makes_system_calls(start):
    child, _ = start(WAITS)
    stopped = rests(child)

    assert stopped.call(CALLS["getpid"]) == child.pid
    room = make_room(stopped, READ)

    assert f"\n{room:x}-{room + PAGE:x} r--p 00000000 00:00 0" in (stopped.place / "maps").read_text()


def test_a_system_call_that_fails_is_an_error_with_its_number(start):
    child, _ = start(WAITS)

    with pytest.raises(OSError, match=str(child.pid)) as raised:
        rests(child).call(CALLS["close"], 999)

    assert raised.value.errno == errno.EBADF


def test_its_memory_is_read_and_written(start):
    child, known = start(WAITS)
    stopped = rests(child)
    before = stopped.read(known, 24)

    stopped.write(known, b"what it is told")

    assert before == b"what it knows, and nobod"
    assert stopped.read(known, 24) == b"what it is told\0, and no"[:16] + before[16:]


def test_what_it_may_not_write_to_itself_is_written_too(start):
    child, _ = start(WAITS)
    stopped = rests(child)
    room = make_room(stopped, READ | EXECUTE)

    stopped.write(room, b"told")

    assert stopped.read(room, 8) == b"told\0\0\0\0"


def test_its_threads_go_on_with_other_code(start):
    child, _ = start(WAITS)
    stopped = rests(child)
    room = make_room(stopped, READ | EXECUTE)
    stopped.write(room, bytes.fromhex(WRITES) + b"1")
    stopped.write(room + REST_AT, bytes.fromhex(WRITES) + b"2")

    stopped.release(room, room + REST_AT)

    assert sorted(child.stdout.read(3)) == sorted(b"122")
    assert child.poll() is None


def test_it_ends_with_who_has_stopped_it(start):
    child, _ = start(WAITS)

    assert alone(lambda: len(rests(child).threads)) == 3

    assert child.wait(SECONDS) == -signal.SIGKILL


def test_one_that_has_ended_cannot_be_stopped(start):
    child, _ = start(WAITS)
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        assert time.monotonic() < deadline

    with pytest.raises(OSError):
        rests(child)


def test_one_that_ends_at_a_call_is_reported(start):
    child, _ = start(WAITS)

    with pytest.raises(OSError, match="does not stop"):
        rests(child).call(CALLS["exit_group"], 0)


def test_one_that_is_sent_a_signal_meanwhile_is_reported(start):
    child, _ = start(WAITS)
    stopped = rests(child)
    child.send_signal(signal.SIGUSR1)  # of the threads that may take it, the first one is asked first

    with pytest.raises(OSError, match="SIGUSR1"):
        stopped.call(CALLS["getpid"])
