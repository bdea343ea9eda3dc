"""Load by wrk, and requests one by one."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

SCRIPT = """
wrk.method = "POST"
wrk.body = string.rep("x", %d)
wrk.headers["Content-Type"] = "text/plain"
%s
local paths = {%s}
local at = 0
request = function()
  at = at %% #paths + 1
  return wrk.format(nil, paths[at])
end
%s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a run of wrk saw: requests per second, and latencies in ms."""

    rate: float
    p50: float
    p99: float
    failed: int


def load(
    url: str,
    paths: list[str],
    *,
    connections: int,
    seconds: float,
    body: int = 64,
    key: str | None = None,
    pause: int = 0,
) -> Load:
    """Sends POST requests over kept connections.

    Args:
        url: scheme, host and port.
        paths: visited in turn.
        connections: open at once, in one thread.
        seconds: how long.
        body: bytes of each request body.
        key: sent as bearer token.
        pause: ms after an answer until a connection sends the next request, on average; 0: it does so at once.
    """
    waits = f"delay = function() return math.random(0, {2 * pause}) end" if pause else ""
    header = f'wrk.headers["Authorization"] = "Bearer {key}"' if key else ""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (body, header, ", ".join(json.dumps(path) for path in paths), waits))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(output.partition("RESULT")[2].splitlines()[0])
    return Load(result["requests"] / result["seconds"], result["p50"], result["p99"], result["failed"])


def request_ms(port: int, path: str, key: str) -> tuple[float, bytes]:
    """Sends one POST on a connection made before; returns ms from the first byte sent to the last received, and the
    response."""
    body = b"x" * 64
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-length: 64\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        connection.sendall(head.encode() + b"\r\n" + body)
        answer = connection.recv(65536)
        return (time.perf_counter() - began) * 1e3, answer


def percentile(values: list[float], share: float) -> float:
    """Returns the value below which ``share`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ask(path: Path, target: str) -> str:
    """Sends a POST without a body to a unix socket; returns the body of the answer."""
    connection = HTTPConnection("worker")
    connection.sock = socket.socket(socket.AF_UNIX)
    with closing(connection):
        connection.sock.connect(str(path))
        connection.request("POST", target)
        return connection.getresponse().read().decode()


def wait_for_port(port: int, seconds: float = 30) -> None:
    """Waits until something listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            return


def free_port() -> int:
    """Returns a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_mib(pids: list[int]) -> float:
    """Returns the memory of processes, each page shared by n of them counted 1/n (PSS)."""
    total = 0
    for pid in pids:
        with suppress(ProcessLookupError, FileNotFoundError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
