"""Throughput and latency of a function that is warm, beside the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from bench import peers
from bench.load import load
from bench.platform import Platform, platform
from bench.row import Row

CONNECTIONS = (1, 32, 128)
BODIES = {"64 B": 64, "64 KiB": 65536}
PEERS: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "nginx return 200 (ceiling)": peers.nginx_return,
    "nginx to the same Python worker": peers.nginx_to_worker,
    "uvicorn + FastAPI, 2 workers": peers.fastapi,
    "functions-framework as shipped": peers.framework,
    "functions-framework --asgi, 2 workers": peers.framework_asgi,
}


def warm(seconds: float) -> Iterator[Row]:
    """All of them in one run, Martlet with everything on."""
    with platform() as running:
        running.deploy("hello")
        for body in BODIES:
            for connections in CONNECTIONS:
                yield of_platform("Martlet", running, connections, body, seconds)
    for name, peer in PEERS.items():
        with peer() as port:
            for connections in CONNECTIONS:
                yield _row(name, connections, "64 B", f"http://127.0.0.1:{port}", ["/"], None, seconds)


def of_platform(name: str, running: Platform, connections: int, body: str, seconds: float) -> Row:
    """Returns the row of the function ``hello``."""
    return _row(name, connections, body, running.url, ["/invoke/hello"], running.key, seconds)


def _row(
    name: str, connections: int, body: str, url: str, paths: list[str], key: str | None, seconds: float
) -> Row:
    load(url, paths, connections=connections, seconds=1, body=BODIES[body], key=key)
    seen = load(url, paths, connections=connections, seconds=seconds, body=BODIES[body], key=key)
    return {
        "server": name,
        "connections": connections,
        "body": body,
        "req/s": round(seen.rate),
        "p50 ms": round(seen.p50, 3),
        "p99 ms": round(seen.p99, 3),
        "failed": seen.failed,
    }
