import os
import socket
from typing import NoReturn

import pytest

from martlet.sandbox.namespaces import PidNamespaces, separate
from tests.alone import alone

pytestmark = pytest.mark.root


def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "ipc", "uts")}


def test_each_child_is_the_first_process_of_its_own_namespace():
    def fork_two() -> list[int]:
        forks = PidNamespaces()
        return [forked_pid(forks), forked_pid(forks)]

    assert alone(fork_two) == [1, 1]


def test_the_parent_goes_on_forking_at_home():
    def fork_at_home() -> bool:
        forked_pid(PidNamespaces())
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, str(os.getpid()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return int(os.read(reader, 10)) == pid

    assert alone(fork_at_home)


def test_what_the_parent_does_meanwhile_comes_before_it_is_home():
    def fork_and_look() -> list[bool]:
        places: list[str] = []
        reader, writer = os.pipe()

        def wait() -> NoReturn:
            os.read(reader, 1)
            os._exit(0)

        def look() -> None:
            places.append(os.readlink("/proc/self/ns/pid_for_children"))

        look()
        pid = PidNamespaces().fork(wait, look)
        look()
        os.write(writer, b"x")
        os.waitpid(pid, 0)
        home, meanwhile, after = places
        return [meanwhile != home, after == home]

    assert alone(fork_and_look) == [True, True]


def test_a_child_runs_nothing_of_what_modules_do_at_a_fork():
    def fork_with_a_hook() -> list[str]:
        seen: list[str] = []
        os.register_at_fork(
            before=lambda: seen.append("before"),
            after_in_child=lambda: seen.append("after"),
        )
        reader, writer = os.pipe()

        def say() -> NoReturn:
            os.write(writer, " ".join(["forked", *seen]).encode())
            os._exit(0)

        os.waitpid(PidNamespaces().fork(say), 0)
        return os.read(reader, 100).decode().split()

    assert alone(fork_with_a_hook) == ["forked"]


def test_a_separate_process_shares_no_mounts_names_or_queues():
    def separated() -> dict[str, str]:
        separate()
        return namespaces()

    home = namespaces()
    there = alone(separated)
    assert all(there[name] != home[name] for name in home)


def test_a_new_host_name_is_not_seen_outside():
    def rename() -> str:
        separate()
        socket.sethostname("inside")
        return socket.gethostname()

    assert alone(rename) == "inside"
    assert socket.gethostname() != "inside"


def forked_pid(forks: PidNamespaces) -> int:
    """Forks a child that says its own process id."""
    reader, writer = os.pipe()

    def say() -> NoReturn:
        os.write(writer, str(os.getpid()).encode())
        os._exit(0)

    pid = forks.fork(say)
    os.waitpid(pid, 0)
    return int(os.read(reader, 10))
