"""What an observer hears of a process whose denied calls wait."""

import ctypes
import errno
import mmap
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from martlet.sandbox import privileges, syscalls
from martlet.sandbox.seccomp.denials import Denial, Observer
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone, Mount

SECONDS = 20
POLICY = Policy.load()


@contextmanager
def observed(action: Callable[[], object]) -> Iterator[tuple[int, Observer]]:
    """Runs an action in a child that is observed. Gives its process id and the observer.

    The child ends with the error number that the action is refused with, or 0.
    """
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            privileges.forbid_new_privileges()
            socket.send_fds(there, [b"-"], [Filter(POLICY, observed=True).load()])
            action()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    _, (listener,), *_ = socket.recv_fds(here, 1, 1)
    observer = Observer(listener, POLICY)
    with here, there:
        yield pid, observer
    observer.close()


def hear(observer: Observer) -> list[Denial]:
    """All that is heard until the process has ended."""
    heard: list[Denial] = []
    ready = select.poll()
    ready.register(observer.listener, select.POLLIN)
    while not observer.over:
        assert ready.poll(SECONDS * 1000), "nothing is heard"
        heard += observer.hear()
    return heard


def run(action: Callable[[], object]) -> tuple[int, list[tuple[str, str, str]]]:
    """The error number that an action gets, and what is heard of it."""
    with observed(action) as (pid, observer):
        heard = hear(observer)
        _, status = os.waitpid(pid, 0)
    for denial in heard:
        assert denial.reason
    return os.waitstatus_to_exitcode(status), [(each.call, each.arguments, each.error) for each in heard]


def make_disk(name: bytes) -> None:
    syscalls.call(POLICY.numbers["mknodat"], -100, ctypes.c_char_p(name), 0o060600, 0)


@pytest.mark.parametrize(
    ("action", "denial"),
    [
        (
            lambda: syscalls.unshare(Clone.USER | Clone.MOUNT),
            ("unshare", "CLONE_NEWNS|CLONE_NEWUSER", "EPERM"),
        ),
        (
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            ("socket", "AF_PACKET, SOCK_RAW, 0", "EPERM"),
        ),
        (
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 1),
            ("socket", "AF_INET, SOCK_RAW, 1", "EPERM"),
        ),
        (
            lambda: syscalls.mount("tmpfs", "/nowhere", Mount.NO_DEV),
            ("mount", "'tmpfs', '/nowhere', 'tmpfs'", "EPERM"),
        ),
        (lambda: os.chroot("/tmp"), ("chroot", "'/tmp'", "EPERM")),
        (lambda: make_disk(b"/tmp/disk"), ("mknodat", "'/tmp/disk', S_IFBLK", "EPERM")),
        (lambda: syscalls.call(POLICY.numbers["io_uring_setup"], 1, 0), ("io_uring_setup", "", "ENOSYS")),
        (lambda: syscalls.call(POLICY.numbers["prctl"], 9999), ("prctl", "0x270f", "EPERM")),
        (lambda: syscalls.call(600), ("number 600", "", "ENOSYS")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_denied_call_is_heard_in_words_and_answered_as_it_would_be(action, denial):
    code, heard = run(action)

    assert heard == [denial]
    assert code == getattr(errno, denial[2])


def test_a_name_that_is_not_in_memory_is_left_out():
    _, heard = run(lambda: syscalls.call(POLICY.numbers["chroot"], 1))

    assert heard == [("chroot", "", "EPERM")]


def test_a_name_at_the_edge_of_memory_is_read():
    def change_root() -> None:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        page[-3:] = b"/x\0"
        end = ctypes.addressof(ctypes.c_char.from_buffer(page)) + mmap.PAGESIZE
        syscalls.call(POLICY.numbers["chroot"], end - 3)

    assert run(change_root)[1] == [("chroot", "'/x'", "EPERM")]


def test_what_is_allowed_is_not_heard():
    assert run(lambda: os.listdir("/")) == (0, [])


def test_children_are_heard_too():
    def parent() -> None:
        child = os.fork()
        if child == 0:
            os.sync()
            os._exit(0)
        os.waitpid(child, 0)
        os.sync()

    assert run(parent)[1] == [("sync", "", "EPERM")] * 2


def test_a_process_that_is_killed_while_it_waits_holds_nobody_up():
    with observed(os.sync) as (pid, observer):
        ready = select.poll()
        ready.register(observer.listener, select.POLLIN)
        assert ready.poll(SECONDS * 1000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        assert hear(observer) == []
