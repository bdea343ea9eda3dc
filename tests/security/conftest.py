"""One platform under attack, a neighbour on it that must not notice, and the proof after each test that all is well."""

import io
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import MICROVMS, require
from tests.driver_rigs import prepare_microvms
from tests.system.conftest import Platform, make_platform, making_platforms, until

__all__ = ["make_platform"]

FUNCTIONS = Path(__file__).parent / "functions"
NEIGHBOUR = """
SECRET = "nobody-else-knows-code"
def handle(request):
    return request.body[::-1]
"""
NEIGHBOUR_SECRETS = "[n]obody-else-knows"
"""Matches the secrets in the neighbour's code and environment and in the platform's environment, and not itself."""
PATIENCE = 30
"""Seconds a neighbour may wait for its answer on a busy machine; whoever is locked out waits for ever."""


class Hostile:
    """A deployed function of ``functions/``: each attempt is a Python function in it."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.platform = platform
        self.name = name

    def send(self, attempt: str, *arguments: Any, **request: Any) -> httpx2.Response:
        """Has it try; returns whatever comes back."""
        return self.platform.invoke(self.name, json={"attempt": attempt, "arguments": arguments}, **request)

    def attempt(self, attempt: str, *arguments: Any) -> Any:
        """Has it try; returns what it says came of it."""
        response = self.send(attempt, *arguments)
        assert response.status_code == 200, response.text
        return response.json()["outcome"]

    @property
    def pids(self) -> list[int]:
        """The processes of its instances, as the host numbers them."""
        return [instance["pid"] for instance in self.platform.instances(self.name)]


def package(*files: Path) -> bytes:
    """Returns a zip of ``handler.py`` (the first file) and others."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for number, file in enumerate(files):
            zipped.writestr(file.name if number else "handler.py", file.read_text())
    return archive.getvalue()


GVISOR = "runsc"
RUNGS = ("process", "crun", "runc", GVISOR, "microvm")
"""What functions are isolated by: processes, containers of an engine, or machines."""
_MARKS = {"process": (), "microvm": (pytest.mark.slow, pytest.mark.timeout(900))}
_ELSEWHERE = {"runc": "every_engine", GVISOR: "every_engine", "microvm": "every_rung"}
"""Those that not all attacks are tried on, and the option that has them tried."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has tests with hostile functions attack every rung. In processes and on the first engine of containers that is
    all of them; elsewhere, those that are marked for it (``pytest.mark.engine("runc")``: what is shown are walls that
    the engine itself builds), or all with ``--every-engine`` and ``--every-rung``.
    """
    if "hostile" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption
    marker = metafunc.definition.get_closest_marker("engine")
    marked = () if marker is None else marker.args
    metafunc.parametrize(
        "rung",
        [
            pytest.param(rung, marks=_MARKS.get(rung, pytest.mark.slow))
            for rung in RUNGS
            if rung in marked or rung not in _ELSEWHERE or asked(_ELSEWHERE[rung])
        ],
        indirect=True,
        scope="module",
    )


@pytest.fixture(scope="module")
def rung(request: pytest.FixtureRequest) -> str:
    """What is attacked; where a test has no function for it, the platform of processes."""
    rung: str = getattr(request, "param", "process")
    if rung == "microvm":
        prepare_microvms()
    else:
        require(rung == "process" or shutil.which(rung), rung)
    return rung


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Platform]]:
    """Returns the platform that every test of a rung attacks: the one of processes has crun and microVMs as well."""
    with making_platforms(tmp_path_factory) as make:

        @cache
        def start(engine: str) -> Platform:
            platform = make(
                header_timeout=2, body_timeout=2, container_runtime=engine, microvm_path=str(MICROVMS)
            )
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("SECRET", "nobody-else-knows-platform")
                platform.start()
            secret = {"SECRET": "nobody-else-knows-environment"}
            platform.deploy("neighbour", NEIGHBOUR, min_instances=1, environment=secret)
            return platform

        yield start


@pytest.fixture(scope="module")
def platform(attacked: Callable[[str], Platform], rung: str) -> Platform:
    """The platform that the tests of a module attack, by rung."""
    usual = "crun" if shutil.which("crun") else "auto"
    return attacked(usual if rung in ("process", "microvm") else rung)


@pytest.fixture(scope="module")
def hostile(rung: str, platform: Platform) -> Iterator[Callable[..., Hostile]]:
    """Deploys files of ``functions/``; what it has deployed is deleted after the module."""
    deployed: set[str] = set()

    def deploy(file: str, name: str | None = None, **config: Any) -> Hostile:
        name = name or file
        config = {"execution_mode": rung if rung in ("process", "microvm") else "container"} | config
        body = {
            "files": {"archive": ("code.zip", package(FUNCTIONS / f"{file}.py", FUNCTIONS / "attempts.py"))},
            "data": {"name": name, "config": httpx2.Response(200, json=config).text},
        }
        answer = platform.client.post("/functions", **body)
        assert answer.status_code == 201, answer.text
        deployed.add(name)
        return Hostile(platform, name)

    yield deploy
    for name in deployed:
        platform.client.delete(f"/functions/{name}")


@pytest.fixture(autouse=True)
def unharmed(platform: Platform) -> Iterator[None]:
    """Whatever a test has tried: no process of the platform was lost, and the neighbour answers rightly."""
    before = platform.children()
    yield
    assert platform.children() == before, platform.log()[-4000:]
    assert platform.client.get("/ready").status_code == 200
    assert platform.invoke("neighbour", content=b"after").content == b"retfa"


@contextmanager
def undisturbed(platform: Platform) -> Iterator[None]:
    """The neighbour answers rightly, and without long waits, all the while."""
    answers: list[bytes] = []
    stop = threading.Event()

    def call() -> None:
        with httpx2.Client(headers={"authorization": f"Bearer {platform.key}"}, timeout=PATIENCE) as client:
            while not stop.wait(0.02):
                try:
                    answers.append(client.post(f"{platform.url}/invoke/neighbour", content=b"during").content)
                except httpx2.HTTPError as error:
                    answers.append(repr(error).encode())
                    return

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield
        until(lambda: answers, why="the neighbour was not answered once")
    finally:
        stop.set()
        caller.join()
    assert set(answers) == {b"gnirud"}


def resident(pid: int) -> int:
    """Returns the bytes of memory a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


@contextmanager
def bounded_memory(platform: Platform, growth: int = 64 * 1024 * 1024) -> Iterator[None]:
    """No process of the platform grows by more than ``growth`` bytes."""
    before = {pid: resident(pid) for pid in platform.children().values()}
    yield
    assert {pid: resident(pid) - held for pid, held in before.items() if resident(pid) - held > growth} == {}
