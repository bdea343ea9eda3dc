"""What a hostile neighbour does to the latency of another function."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from bench.load import load, request_ms
from bench.platform import Platform, platform
from bench.row import Row

CONNECTIONS = 4
AT_ONCE = 4
ATTACKS = {
    "CPU spin": "def handle(request):\n    while True:\n        pass\n",
    "memory bomb": "def handle(request):\n    held = []\n    while True:\n        held.append(bytearray(1 << 20))\n",
    "fork bomb": (
        "import os\ndef handle(request):\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\n"
    ),
}


def neighbours(seconds: float) -> Iterator[Row]:
    """Latency of ``hello`` alone and beside each attack, which is begun again whenever it was ended."""
    with platform(drain_timeout=1) as running:
        running.deploy("hello")
        for name, code in ATTACKS.items():
            running.deploy(name.lower().replace(" ", "-"), code, timeout=5, max_instances=AT_ONCE)
        for name in ATTACKS:
            quiet = _latency(running, seconds)
            stop = threading.Event()
            attackers = [
                threading.Thread(target=_attack, args=(running, name.lower().replace(" ", "-"), stop))
                for _ in range(AT_ONCE)
            ]
            for attacker in attackers:
                attacker.start()
            time.sleep(1)
            beside = _latency(running, seconds)
            stop.set()
            for attacker in attackers:
                attacker.join()
            yield {
                "server": f"hello beside {AT_ONCE} instances of a {name}",
                "p50 alone ms": round(quiet[0], 3),
                "p50 ms": round(beside[0], 3),
                "p99 alone ms": round(quiet[1], 2),
                "p99 ms": round(beside[1], 2),
                "p99 ratio": round(beside[1] / quiet[1], 2),
            }


def _latency(running: Platform, seconds: float) -> tuple[float, float]:
    seen = load(running.url, ["/invoke/hello"], connections=CONNECTIONS, seconds=seconds, key=running.key)
    if seen.failed:
        raise RuntimeError(f"{seen.failed} requests of the neighbour failed")
    return seen.p50, seen.p99


def _attack(running: Platform, name: str, stop: threading.Event) -> None:
    while not stop.is_set():
        request_ms(running.port, f"/invoke/{name}", running.key)
