"""What a hostile neighbour does to the latency of another function."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import median

from bench.load import load, request_ms
from bench.platform import Platform, platform
from bench.row import Row

CONNECTIONS = 4
LOADS = {"500 requests/s": 8, "as many requests as it answers": 0}
"""ms for which a connection waits before the next."""
AT_ONCE = 4
PAIRS = 5
"""Loads alone, and as many beside an attack. Where load, lanes and functions share two cores, the 99th of a hundred
differs up to eightfold between two loads alone, so that a single pair may have any ratio."""
ATTACKS = {
    "CPU spin": "def handle(request):\n    while True:\n        pass\n",
    "memory bomb": "def handle(request):\n    held = []\n    while True:\n        held.append(bytearray(1 << 20))\n",
    "fork bomb": (
        "import os\ndef handle(request):\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\n"
    ),
}


def neighbours(seconds: float) -> Iterator[Row]:
    """Latency of ``hello`` alone and beside each attack, in turn; an attack is begun again whenever it was ended.

    It is asked now and then, which is how a neighbour notices others, and as often as it answers: then load, lanes and
    function want both cores for themselves.
    """
    with platform(drain_timeout=1) as running:
        running.deploy("hello")
        for name, code in ATTACKS.items():
            running.deploy(name.lower().replace(" ", "-"), code, timeout=5, max_instances=AT_ONCE)
        _latency(running, 1, 0)  # its instances start, which is neither
        for (load_name, pause), name in product(LOADS.items(), ATTACKS):
            attack = name.lower().replace(" ", "-")
            pairs = [
                (_latency(running, seconds, pause), _beside(running, attack, seconds, pause))
                for _ in range(PAIRS)
            ]
            alone, beside = zip(*pairs, strict=True)
            p50_alone, p99_alone = _medians(alone)
            p50, p99 = _medians(beside)
            yield {
                "server": f"hello, {load_name}, beside {AT_ONCE} instances of a {name}",
                "p50 alone ms": round(p50_alone, 3),
                "p50 ms": round(p50, 3),
                "p99 alone ms": round(p99_alone, 2),
                "p99 ms": round(p99, 2),
                "p99 ratio": round(p99 / p99_alone, 2),
                "ratios": " ".join(f"{there[1] / here[1]:.1f}" for here, there in pairs),
            }


def _beside(running: Platform, attack: str, seconds: float, pause: int) -> tuple[float, float]:
    stop = threading.Event()
    attackers = [threading.Thread(target=_attack, args=(running, attack, stop)) for _ in range(AT_ONCE)]
    for attacker in attackers:
        attacker.start()
    time.sleep(1)
    try:
        return _latency(running, seconds, pause)
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()


def _medians(latencies: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(p50 for p50, _ in latencies), median(p99 for _, p99 in latencies)


def _latency(running: Platform, seconds: float, pause: int) -> tuple[float, float]:
    seen = load(
        running.url, ["/invoke/hello"], connections=CONNECTIONS, seconds=seconds, key=running.key, pause=pause
    )
    if seen.failed:
        raise RuntimeError(f"{seen.failed} requests of the neighbour failed")
    return seen.p50, seen.p99


def _attack(running: Platform, name: str, stop: threading.Event) -> None:
    while not stop.is_set():
        request_ms(running.port, f"/invoke/{name}", running.key)
