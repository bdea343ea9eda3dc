"""From the request of a function that has no instance to its first response."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench import peers
from bench.load import free_port, request_ms, wait_for_port
from bench.platform import Platform, platform
from bench.row import Row, latencies

PAUSE = 0.25
"""Seconds in which cells that were used are replaced."""
SLOW_PEERS = 5
PYTHON = """
import http.server, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "5"); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"""


def cold(count: int) -> Iterator[Row]:
    """Functions that have never run, one by one and all at once; and what starting Python anew takes."""
    with platform() as running:
        for number in range(count):
            running.deploy(f"cold-{number}")
        for name, pause in (("with a ready cell", PAUSE), ("back to back", 0.0)):
            running.stop_instances()
            took = [_first_response(running, number, pause) for number in range(count)]
            yield latencies(f"cold start, {name}", took)
        running.stop_instances()
        began = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            took = list(pool.map(lambda n: _first_response(running, n, 0.0), range(count)))
        yield latencies(f"{count} different cold functions at once", took) | {
            "all ms": round((time.perf_counter() - began) * 1e3)
        }
    with platform(min_cells=0, max_cells=0) as running:
        for number in range(count):
            running.deploy(f"cold-{number}")
        running.stop_instances()
        took = [_first_response(running, number, PAUSE) for number in range(count)]
        yield latencies("cold start, through the zygote", took)
    yield latencies("python http.server started anew", [_python_anew() for _ in range(count // 5)])
    yield latencies("functions-framework started anew", [_framework_anew() for _ in range(SLOW_PEERS)])


def _first_response(running: Platform, number: int, pause: float) -> float:
    time.sleep(pause)
    return running.first_response(f"/invoke/cold-{number}")


def _python_anew() -> float:
    port = free_port()
    began = time.perf_counter()
    with peers.running([sys.executable, "-c", PYTHON, str(port)]):
        wait_for_port(port)
        return _answered(port, began)


def _framework_anew() -> float:
    began = time.perf_counter()
    with peers.framework() as port:
        return _answered(port, began)


def _answered(port: int, began: float) -> float:
    request_ms(port, "/", "none")
    return (time.perf_counter() - began) * 1e3
