"""The measurements: each returns rows of plain numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from bench import peers
from bench.load import load, memory_mib, percentile, request_ms
from bench.platform import Platform, platform

Row = dict[str, object]
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
    """Throughput and latency of a function that is warm, beside the peers, in one run."""
    with platform() as running:
        running.deploy("hello")
        yield from _loads("Martlet", running, ["/invoke/hello"], seconds)
    for name, peer in PEERS.items():
        with peer() as port:
            for connections in CONNECTIONS:
                yield _row(name, connections, "64 B", f"http://127.0.0.1:{port}", ["/"], None, seconds)


def _loads(name: str, running: Platform, paths: list[str], seconds: float) -> Iterator[Row]:
    for body in BODIES:
        for connections in CONNECTIONS:
            yield _row(name, connections, body, running.url, paths, running.key, seconds)


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


def many_functions(seconds: float, count: int) -> Iterator[Row]:
    """Throughput of one function while one, then ``count``, are deployed; and what a deploy takes."""
    with platform() as running:
        running.deploy("hello")
        paths = ["/invoke/hello"]
        yield _row("Martlet, 1 function", 32, "64 B", running.url, paths, running.key, seconds)
        took = []
        for number in range(1, count):
            began = time.perf_counter()
            running.deploy(f"hello-{number}")
            took.append((time.perf_counter() - began) * 1e3)
        yield _row(f"Martlet, {count} functions", 32, "64 B", running.url, paths, running.key, seconds)
        yield {
            "server": "deploy of inline code",
            "count": len(took),
            "p50 ms": round(percentile(took, 0.5), 2),
            "p99 ms": round(percentile(took, 0.99), 2),
        }


def cold(count: int) -> Iterator[Row]:
    """From the request of a function that has no instance to its first response.

    Once with a pause between requests, in which the cells that were used are replaced; once back to back, so that most
    requests find no ready cell and wait for a fork of the zygote too.
    """
    with platform() as running:
        for number in range(count):
            running.deploy(f"cold-{number}")
        for name, pause in (("with a ready cell", 0.25), ("back to back", 0.0)):
            for instance in running.client.instances():
                running.client.stop_instance(instance["id"])
            time.sleep(1)
            took = [_first_response(running, f"/invoke/cold-{number}", pause) for number in range(count)]
            yield {
                "server": f"cold start, process rung, {name}",
                "count": count,
                "p50 ms": round(percentile(took, 0.5), 2),
                "p90 ms": round(percentile(took, 0.9), 2),
                "p99 ms": round(percentile(took, 0.99), 2),
            }


def _first_response(running: Platform, path: str, pause: float) -> float:
    time.sleep(pause)
    ms, answer = request_ms(running.port, path, running.key)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"a cold start failed: {answer[:500]!r}")
    return ms


def start_and_memory() -> Iterator[Row]:
    """How long the platform takes to be ready, and what memory it holds before and with one function."""
    began = time.perf_counter()
    with platform() as running:
        yield {"server": "platform ready", "ms": round((time.perf_counter() - began) * 1e3)}
        yield {"server": "memory of the idle platform", "MiB": round(memory_mib(running.pids()), 1)}
        running.deploy("first")
        before = memory_mib(running.pids())
        for number in range(100):
            running.deploy(f"held-{number}")
        each = (memory_mib(running.pids()) - before) / 100
        yield {"server": "memory of an idle instance", "MiB": round(each, 2)}
