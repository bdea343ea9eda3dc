"""A platform for measuring: ``martlet serve`` with everything on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from bench.load import free_port, request_ms
from martlet.client import Client

HELLO = "def handle(request):\n    return 'hello'\n"
END_SECONDS = 120
"""What ending a platform may take, with all the instances that it holds."""
UNLIMITED = "100000000/min"
"""So high that nothing is refused: the buckets are taken from all the same."""


class Platform:
    """A running platform: its port, a client, and a key whose requests are counted and limited."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], file: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._file = file
        self.client = Client(self.url, "admin-key")
        self.key = ""

    def make_key(self) -> None:
        """Makes the key that load is sent with."""
        made = self.client.create_key("bench", scopes=["invoke"], rate_limit=UNLIMITED)
        self.key = made["secret"]

    def deploy(self, name: str, code: str = HELLO, **config: object) -> None:
        """Creates a function with a rate limit of its own."""
        self.client.create(name, code, {"rate_limit": UNLIMITED, **config})

    def stop_instances(self, settle: float = 2.0) -> None:
        """Ends every instance, and waits until cells have taken the place of those that were used.

        Args:
            settle: seconds that those take.
        """
        for instance in self.client.instances():
            self.client.stop_instance(instance["id"])
        while self.client.instances():
            time.sleep(0.1)
        time.sleep(settle)

    def first_response(self, path: str) -> float:
        """Returns the ms from the request to a function to its response, which must be good."""
        ms, answer = request_ms(self.port, path, self.key)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a cold start failed: {answer[:500]!r}")
        return ms

    def log(self) -> str:
        """Returns what it has printed."""
        return self._file.read_text(errors="replace")

    def pids(self) -> list[int]:
        """Returns every process of the platform."""
        found, new = [], [self.process.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            with suppress(ProcessLookupError, FileNotFoundError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    new += map(int, (task / "children").read_text().split())
        return found


@contextmanager
def platform(**system: object) -> Iterator[Platform]:
    """Runs a platform with temporary data; yields it when it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder) / "config.yaml"
        settings = {
            "development": True,
            "api_gateway_port": port,
            "function_storage_path": f"{folder}/data",
            "rate_limit_per_client": UNLIMITED,
            "max_concurrent_functions": 5000,
            "default_network": "none",  # the network of the machine stays as it is
            **system,
        }
        config.write_text(yaml.safe_dump({"system": settings}))
        command, file = [sys.executable, "-m", "martlet.cli"], Path(folder) / "log"
        with file.open("wb") as log:
            if "peer_address" in system:
                subprocess.run([*command, "cluster", "init", "-c", str(config)], check=True, stderr=log)
            process = subprocess.Popen([*command, "serve", "-c", str(config)], stdout=log, stderr=log)
        running = Platform(port, process, file)
        try:
            _wait_ready(running)
            running.make_key()
            yield running
        finally:
            process.terminate()
            process.wait(END_SECONDS)


def _wait_ready(running: Platform) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            running.client.ready()
        except Exception:
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the platform did not start:\n{running.log()[-3000:]}") from None
            time.sleep(0.02)
        else:
            return
