"""What the sandbox costs code that runs in it: the same runtime and function, inside and outside."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import peers
from bench.load import ask
from bench.platform import Platform, platform
from bench.row import Row
from martlet.sandbox import privileges
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy

PLATFORMS, PROCESSES, ROUNDS = 3, 10, 10
CODE = """
import os, time

FILES = [os.path.join(os.path.dirname(os.__file__), f"{name}.py") for name in "os this stat json/decoder abc".split()]

def compute():
    total = 0
    for number in range(200_000):
        total += number * number % 7

def call():
    for _ in range(10_000):
        os.getppid()
        os.stat("/")

def read():
    for _ in range(200):
        for path in FILES:
            with open(path, "rb") as file:
                file.read()

def handle(request):
    began = time.process_time()
    {"/compute": compute, "/call": call, "/read": read}[request.path]()
    return str((time.process_time() - began) * 1e3)
"""
KINDS = {
    "/compute": "makes no system calls",
    "/read": "reads files",
    "/call": "makes system calls that do next to nothing",
}
"""What functions do, by the paths that they are asked for."""
SANDBOX, OUTSIDE, FILTERED = "in the sandbox ms", "outside ms", "outside with any filter ms"

Work = Callable[[str], str]
"""Has one process do the work at a path; returns the CPU ms that it took, as text."""


def overhead() -> Iterator[Row]:
    """CPU time of functions that compute and that make system calls, measured by themselves.

    It is also measured outside with a filter of system calls that refuses none, because the kernel goes a longer way
    through every call of a process that has any. Two processes of the same program differ by more than what is looked
    for, by where they lie in memory: there are many of each kind, which take turns, and a few zygotes.

    There is one lane, since one alone is not kept on a core: the workers outside are not either.
    """
    took: dict[str, dict[str, list[float]]] = {}
    for _ in range(PLATFORMS):
        with ExitStack() as stack:
            running = stack.enter_context(platform(lanes=1))
            workers: dict[str, list[Work]] = {
                SANDBOX: [_function(running, f"works-{number}") for number in range(PROCESSES)],
                OUTSIDE: _outside(stack.enter_context(peers.python_workers(PROCESSES, 1, CODE))),
                FILTERED: _outside(
                    stack.enter_context(peers.python_workers(PROCESSES, 1, CODE, prepare=_filter()))
                ),
            }
            for path in KINDS:
                _measure(workers, path, took.setdefault(path, {side: [] for side in workers}))
    for path, sides in took.items():
        medians = {side: statistics.median(each) for side, each in sides.items()}
        yield {
            "server": f"function that {KINDS[path]}",
            **{side: round(ms, 3) for side, ms in medians.items()},
            "more %": round((medians[SANDBOX] / medians[OUTSIDE] - 1) * 100, 1),
            "more than with any filter %": round((medians[SANDBOX] / medians[FILTERED] - 1) * 100, 1),
        }


def _measure(workers: dict[str, list[Work]], path: str, took: dict[str, list[float]]) -> None:
    """Has one process of each kind work after the other, so that what disturbs one disturbs the others."""
    for _ in range(ROUNDS):
        for number in range(PROCESSES):
            for side, each in workers.items():
                took[side].append(float(each[number](path)))


def _function(running: Platform, name: str) -> Work:
    running.deploy(name, CODE)
    return lambda path: running.client.invoke(name, path=path).text


def _outside(sockets: list[Path]) -> list[Work]:
    return [partial(ask, path) for path in sockets]


def _filter() -> Callable[[], None]:
    """Returns what a process calls to have a filter that refuses nothing."""
    allowing = Filter(Policy.load(), decides=lambda _: False)

    def load() -> None:
        privileges.forbid_new_privileges()
        allowing.load()

    return load
