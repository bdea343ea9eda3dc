"""A shim by itself: run by the program protocol, without sandbox, as the warden would.

``python -m tests.runtimes.shim CODE COMMAND…`` prints the path of the socket to talk to (``curl --unix-socket``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LISTENER, _ANSWER = 3, 4


@dataclass(frozen=True, slots=True)
class Shim:
    """A running shim: the socket it serves, and what it said of the code on descriptor 4."""

    socket: str
    answer: dict[str, Any]
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    code: Path,
    *,
    handler: str = "handle",
    environment: Mapping[str, str] | None = None,
    concurrency: int = 1,
    max_body: int = 20 << 20,
    memory: int = 128 << 20,
    listen: str = "descriptor",
    log: Any = None,
    wait: float = 0,
) -> Iterator[Shim]:
    """Starts a shim, gives it code, and ends it by SIGTERM.

    Args:
        log: where it prints (a file; None: here).
        wait: seconds that it is without code, as a warm one is; one that ends meanwhile fails.
    """
    specification = {
        "function": "contract",
        "revision": 1,
        "code": str(code),
        "dependencies": None,
        "handler": handler,
        "environment": dict(environment or {}),
        "concurrency": concurrency,
        "max_body": max_body,
        "memory": memory,
    }
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/sock"
        variables = {"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8", "TZ": "UTC"}
        variables |= {f"MARTLET_{name.upper()}": str(value or "") for name, value in specification.items()}
        variables |= specification["environment"]
        if listen == "descriptor":
            listener.bind(path)
            listener.listen(128)
        else:
            variables["MARTLET_SOCKET"] = path
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" {_LISTENER}<&{listener.fileno()} {_ANSWER}>&{writer}',
                "bash",
                *command,
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=code,
            env=variables,
            pass_fds=(listener.fileno(), writer),
        )
        os.close(writer)
        try:
            assert process.stdin is not None
            if wait:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise RuntimeError(f"the shim ended with {process.wait(wait)} before it had code")
            process.stdin.write(json.dumps(specification).encode() + b"\n")
            process.stdin.flush()
            with open(reader) as answers:
                line = answers.readline()
            yield Shim(path, json.loads(line) if line else {}, process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()


def main() -> None:
    """Runs the shim until interrupted."""
    folder, *command = sys.argv[1:]
    with running(command, Path(folder).absolute()) as shim, contextlib.suppress(KeyboardInterrupt):
        print(shim.answer, shim.socket, flush=True)
        shim.process.wait()


if __name__ == "__main__":
    main()
