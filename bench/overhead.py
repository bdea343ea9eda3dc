"""What the sandbox costs code that runs in it: the same runtime and function, inside and outside."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench import peers
from bench.load import ask
from bench.platform import platform
from bench.row import Row

ROUNDS = 15
CODE = """
import os, time

def compute():
    total = 0
    for number in range(1_000_000):
        total += number * number % 7

def call():
    for _ in range(100_000):
        os.getppid()
        os.stat("/")

def handle(request):
    began = time.process_time()
    {"/compute": compute, "/call": call}[request.path]()
    return str((time.process_time() - began) * 1e3)
"""


def overhead() -> Iterator[Row]:
    """CPU time of a function that computes and of one that makes system calls, measured in turn by itself.

    There is one lane, since one alone is not kept on a core: the worker outside is not either.
    """
    with platform(lanes=1) as running, peers.python_workers(1, 1, CODE) as (outside,):
        running.deploy("works", CODE)
        for kind in ("compute", "call"):
            inside_ms, outside_ms = [], []
            for _ in range(ROUNDS):
                inside_ms.append(float(running.client.invoke("works", path=f"/{kind}").text))
                outside_ms.append(float(ask(outside, f"/{kind}")))
            inside, without = statistics.median(inside_ms), statistics.median(outside_ms)
            yield {
                "server": f"function that makes {'system calls' if kind == 'call' else 'no system calls'}",
                "in the sandbox ms": round(inside, 2),
                "outside ms": round(without, 2),
                "more %": round((inside / without - 1) * 100, 1),
            }
