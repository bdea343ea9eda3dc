"""A real platform: ``martlet serve`` on a free port, with data of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from martlet.config import load_settings
from tests.conftest import TOOLCHAINS, require
from tests.ports import free_port

START_TIMEOUT = 90
STOP_TIMEOUT = 90
"""Seconds that a start or a stop of a platform takes at most, on a busy machine too."""


def until(
    condition: Callable[[], Any], *, within: float = 60, why: str = "the condition did not come true"
) -> Any:
    """Waits for ``condition`` to return something true, and returns it; what cannot be asked, is not yet."""
    deadline = time.monotonic() + within
    while True:
        try:
            if found := condition():
                return found
        except httpx2.HTTPError:
            pass
        if time.monotonic() > deadline:
            pytest.fail(f"{why} within {within} s")
        time.sleep(0.02)


def plain_client(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 60) -> httpx2.Client:
    """Returns an HTTP client that has no certificates at hand: to load them takes longer than many a test."""
    return httpx2.Client(base_url=url, headers=headers, timeout=timeout, verify=False)


class Platform:
    """A running platform and clients for it."""

    wrapper: Sequence[str] = ()  # what the platform is started with
    environment: Mapping[str, str] | None = None  # what it finds; None: what the tests do
    key = "demo-key"
    admin_key = "admin-key"

    def __init__(self, data: Path, **system: Any) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = data.parent / f"{data.name}.yaml"
        document = {
            "system": {
                "development": True,
                "api_gateway_port": self.port,
                "function_storage_path": str(data),
                "lanes": 2,
                "toolchains_path": [str(TOOLCHAINS)],
                "default_network": "none",  # the network of the real machine stays as it is
                "build_network": "host",
                "build_prepared_path": str(TOOLCHAINS / "prepared"),
                **system,
            }
        }
        self.config.write_text(yaml.safe_dump(document))
        self.settings = load_settings(self.config, {})
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[httpx2.Client] = []
        self.client = self.client_for(self.key)
        self.admin = self.client_for(self.admin_key)

    def client_for(self, key: str | None) -> httpx2.Client:
        """Returns an HTTP client that sends ``key``."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clients.append(plain_client(self.url, headers=headers))
        return self._clients[-1]

    def start(self) -> None:
        """Starts the platform and waits until it is ready; stops it again if it never is."""
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def remember_versions(self) -> None:
        """Lets the platform know what the toolchains of the tests answered when they were installed."""
        answers = TOOLCHAINS / "toolchains.json"
        if answers.exists() and not (self.wrapper or self.data.exists()):
            self.data.mkdir(mode=0o700)
            shutil.copy(answers, self.data)

    def launch(self) -> None:
        """Starts the platform."""
        self.remember_versions()
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", "martlet.cli", "serve", "-c", str(self.config)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def wait_ready(self) -> None:
        """Waits for every process to answer."""

        def ready() -> bool:
            if self.process is not None and self.process.poll() is not None:
                pytest.fail(f"martlet serve ended with {self.process.returncode}:\n{self.log()[-4000:]}")
            return self.client.get("/ready").status_code == 200

        until(ready, within=START_TIMEOUT, why="the platform was not ready")

    def log(self) -> str:
        """Returns what the platform has printed."""
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")

    def stop(self) -> int:
        """Stops the platform as Ctrl-C does; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(STOP_TIMEOUT)
        self.process = None
        return code

    def close(self) -> None:
        """Stops the platform if it runs, closes the clients and deletes the data."""
        if self.process is not None:
            self.stop()
        for client in self._clients:
            client.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def children(self) -> dict[str, int]:
        """Returns the pids of control and the lanes by name."""
        assert self.process is not None
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            if name == "martlet-control" or name.startswith("martlet-lane-"):
                found[name.removeprefix("martlet-")] = int(pid)
        return found

    def deploy(self, name: str, code: str, **config: Any) -> dict[str, Any]:
        """Creates or updates a function from inline code; fails the test if the platform refuses."""
        body = {"name": name, "code": code, "config": config}
        answer = self.client.post("/functions", json=body)
        if answer.status_code == 409:
            answer = self.client.put(f"/functions/{name}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def invoke(self, name: str, **request: Any) -> httpx2.Response:
        """Sends a POST to a function."""
        return self.client.request(request.pop("method", "POST"), f"/invoke/{name}", **request)

    def instances(self, name: str) -> list[dict[str, Any]]:
        """Returns the living instances of a function."""
        return [i for i in self.client.get("/instances").json() if i["function"] == name]


@contextmanager
def making_platforms(folders: pytest.TempPathFactory) -> Iterator[Callable[..., Platform]]:
    """Lends what makes platforms, ``make(lanes=1)``, and stops those that were made."""
    require(os.geteuid() == 0, "the process rung needs root for its namespaces and cgroups")
    with ExitStack() as stack:

        def make(**system: Any) -> Platform:
            platform = Platform(folders.mktemp("platform") / "data", **system)
            stack.callback(platform.close)
            return platform

        yield make


@pytest.fixture(scope="module")
def make_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Platform]]:
    """Makes platforms that are stopped at the end of the file: an idle one takes its share of the machine too."""
    with making_platforms(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform that the tests share; each uses function names of its own."""
    with making_platforms(tmp_path_factory) as make:
        platform = make()
        platform.start()
        yield platform
