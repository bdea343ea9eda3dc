"""Drivers with everything around them that a node would be: packages, directories, and an ear for exits."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from martlet.drivers.container import ContainerDriver
from martlet.drivers.docker import DockerDriver
from martlet.drivers.docker.service import Service
from martlet.drivers.driver import (
    CellSpec,
    Connecting,
    Driver,
    Forking,
    Handle,
    Loaded,
    LoadFailed,
    Unforkable,
)
from martlet.drivers.fake import FakeDriver, FakeRequest, FakeResponse, crash, echo, hang, run_out_of_memory
from martlet.drivers.microvm import MicroVmDriver, describe, what_is_missing
from martlet.drivers.process import ProcessDriver
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.roots import HostRoots
from martlet.http.conversation import Conversation
from martlet.http.fetch import fetch
from martlet.microvm.templates import Templates
from martlet.model import FunctionConfig, Network, Revision
from martlet.runtimes import Catalogue, Runtime
from martlet.sandbox.engine import ENGINES
from tests.conftest import MICROVMS, UNPRIVILEGED, require, require_root
from tests.container_engines import docker_service, podman_service

SECONDS = 60.0
"""Deadline of everything that is waited for."""
LANE = 50 + 4 * (os.getpid() % 50)
"""A lane that no platform on this machine has, nor another run of the tests, nor another worker of this one, whose
process id is close to ours. So are the three after it."""
WORKSHOP_LANE = LANE + 3

PROGRAMS = Path(__file__).parent / "programs"

SOURCES = {
    "echo": "def handle(request): return request.body",
    "crash": "import os\ndef handle(request): os._exit(1)",
    "hang": "import time\ndef handle(request): time.sleep(600)",
    "hog": "def handle(request): return str(len(bytearray(1 << 30)))",
    "talk": "def handle(request):\n    print('said by the function', flush=True)\n"
    "    with open('/dev/null', 'w') as nobody:\n        print('said to nobody', file=nobody)\n    return 'done'",
    "unloadable": "raise ValueError('this module has no wish to load')",
    "slow": "import time\ntime.sleep(600)",
    "threaded": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    "def handle(request): return 'done'",
}
"""What each function of the rigs does. A driver is free to do it in another way than by running this."""


async def eventually(condition: Callable[[], Any], why: str) -> Any:
    """Waits for ``condition`` to return something true, and returns it."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{why} within {SECONDS} s"
        await asyncio.sleep(0.005)
    return found


class Rig:
    """A driver under test.

    Attributes:
        driver: it.
        started: the cells that it was asked for; forked: what was forked from them.
        exits: ids and exit codes of what ended by itself.
        many: how many cells are a crowd; an engine takes a second for each.
        processes: the most that an instance counts, threads too: a program has a warden, and a kernel has many.
        goes_on: whether an instance serves the connection over which it got its code.
    """

    processes = 2
    goes_on = True

    def __init__(self, driver: Driver, folder: Path, runtime: str = "python") -> None:
        self.driver = driver
        self.runtime = runtime
        self.folder = folder
        self.packages = folder / "packages"
        self.run = folder / "run"
        self.started: list[Handle] = []
        self.forked: list[Handle] = []
        self.exits: list[tuple[str, int]] = []
        self.many = 50
        self._count = 0

    async def start(self, network: Network = Network.NONE, *, urgent: bool = False) -> Handle:
        """Starts a cell."""
        self._count += 1
        spec = replace(self.spec(f"cell-{self._count}", network), urgent=urgent)
        self.started.append(await self.driver.start(spec))
        return self.started[-1]

    async def clear(self) -> None:
        """Destroys all that was asked for, and forgets what has ended."""
        for handles in (self.forked, self.started):  # forks end with what they were forked from
            await asyncio.gather(*map(self.driver.destroy, handles))
            handles.clear()
        self.exits.clear()

    def spec(self, name: str, network: Network = Network.NONE) -> CellSpec:
        directory = self.run / name
        directory.mkdir(parents=True)
        return CellSpec(name, self.runtime, network, directory)

    def package(self, **files: str) -> Path:
        """Writes a package of modules; ``handler="…"`` is the text of ``handler.py``."""
        folder = self.packages / sha256(repr(files).encode()).hexdigest()
        if not folder.exists():  # as everywhere, a package never changes
            folder.mkdir(parents=True)
            for name, text in files.items():
                (folder / f"{name}.py").write_text(text)
        return folder

    def installed(self, names: list[str]) -> Path:
        """A package of dependencies with folders of what is installed here; the first says where."""
        spec = find_spec(names[0])
        require(spec is not None, names[0])
        assert spec is not None
        assert spec.origin is not None
        site, target = Path(spec.origin).parents[1], self.packages / "dependencies"
        for name in names:
            if (site / name).is_dir():
                without = shutil.ignore_patterns("tests", "__pycache__")
                shutil.copytree(site / name, target / name, ignore=without)
        return target

    async def specialise(
        self,
        handle: Handle,
        function: str,
        *,
        source: str | None = None,
        deadline: float = SECONDS,
        dependencies: Path | None = None,
        **config: Any,
    ) -> Loaded:
        """Makes a cell an instance of one of the `SOURCES`, or of ``source``."""
        revision, code = self._revision(function, source, config)
        return await self.driver.specialise(handle, revision, code, dependencies, deadline)

    async def specialise_connected(self, handle: Handle, function: str) -> Conversation | None:
        """Likewise, and returns the connection over which the cell got its code."""
        assert isinstance(self.driver, Connecting)
        revision, code = self._revision(function, None, {})
        _, conversation = await self.driver.specialise_connected(handle, revision, code, None, SECONDS)
        return conversation

    async def template(
        self, function: str, *, source: str | None = None, dependencies: Path | None = None, **config: Any
    ) -> Handle:
        """Starts a template of a function."""
        assert isinstance(self.driver, Forking)
        revision, code = self._revision(function, source, config)
        handle = await self.start()
        await self.driver.prepare_template(handle, revision, code, dependencies, SECONDS)
        return handle

    async def fork(self, template: Handle) -> Handle:
        """Forks an instance from a template."""
        assert isinstance(self.driver, Forking)
        self._count += 1
        self.forked.append(await self.driver.fork(template, self.spec(f"fork-{self._count}")))
        return self.forked[-1]

    def _revision(self, function: str, source: str | None, config: dict[str, Any]) -> tuple[Revision, Path]:
        code = self.package(handler=source or SOURCES[function])
        revision = Revision(
            function=function, number=1, config=FunctionConfig(**config), code=code.name, created=0.0
        )
        return revision, code

    async def instance(self, function: str, **options: Any) -> Handle:
        """Starts an instance of a function."""
        handle = await self.start(options.get("network", Network.NONE))
        await self.specialise(handle, function, **options)
        return handle


async def ask(handle: Handle, document: Any = None) -> bytes:
    """Sends a request to an instance and returns the body of the answer."""
    status, body = await fetch(handle.socket, "POST", "/", document, timeout=SECONDS)
    assert status == 200, (status, body)
    return body


async def printed(log: int, what: bytes) -> None:
    """Waits until a log, open for reading without waiting, has said that: a guest's own comes by another way than its
    answers do.
    """
    said = b""

    def has_said() -> bool:
        nonlocal said
        with suppress(BlockingIOError):
            said += os.read(log, 4096)
        return what in said

    await eventually(has_said, f"{what!r} is printed")


@cache
def _installed() -> Catalogue:
    """The runtimes of this machine: to find out their versions takes a while."""
    return Catalogue.load()


@asynccontextmanager
async def process_rig(
    folder: Path, lane: int = LANE, runtime: str = "python", **options: Any
) -> AsyncIterator[Rig]:
    """A `ProcessDriver` that is open. Takes what its constructor takes."""
    (folder / "packages").mkdir()
    options = {"isolation": os.environ.get(UNPRIVILEGED, "strict"), "runtimes": _installed()} | options
    driver = ProcessDriver(lane, folder / "packages", folder / "run", **options)
    async with _opened(Rig(driver, folder, runtime)) as rig:
        yield rig


@asynccontextmanager
async def container_rig(
    folder: Path, lane: int = LANE, runtime: str = "python", engine: str = "crun", **options: Any
) -> AsyncIterator[Rig]:
    """A `ContainerDriver` that is open. Takes what its constructor takes."""
    require(shutil.which(engine), engine)
    (folder / "packages").mkdir()
    options = {"runtimes": _installed()} | options
    driver = ContainerDriver(ENGINES[engine], lane, folder / "packages", folder / "run", **options)
    rig = Rig(driver, folder, runtime)
    rig.many = 8
    if ENGINES[engine].own_kernel:
        rig.many = 4
        rig.processes = 100
    async with _opened(rig):
        yield rig


@asynccontextmanager
async def program_rig(
    folder: Path,
    *,
    cell: str = "warm",
    listen: str = "descriptor",
    command: Sequence[str] = ("{interpreter}", "-I", "-S", "{runtime}/shim.py", "{runtimes}/python"),
    **options: Any,
) -> AsyncIterator[Rig]:
    """A `ProcessDriver` whose functions are served by a program (see `tests.programs`)."""
    runtime = folder / "runtimes" / "program"
    runtime.mkdir(parents=True)
    start = f"command = {json.dumps(list(command))}\ncell = {cell!r}\nlisten = {listen!r}\n"
    (runtime / "runtime.toml").write_text(f"name = 'program'\ntitle = 'A program'\n[start]\n{start}")
    for source in PROGRAMS.glob("*.py"):
        shutil.copy(source, runtime)
    async with process_rig(folder, runtimes=Catalogue([runtime.parent]), runtime="program", **options) as rig:
        rig.goes_on = False
        yield rig


@asynccontextmanager
async def docker_rig(
    folder: Path,
    service: Callable[[Path], Service] = docker_service,
    lane: int = LANE,
    runtime: str = "python",
    **options: Any,
) -> AsyncIterator[Rig]:
    """A `DockerDriver` with real containers of Docker Engine, or of what ``service`` leads to."""
    (folder / "packages").mkdir()
    roots = HostRoots(folder / "roots", Resolvers.find().text)
    options = {"runtimes": _installed(), "roots": roots} | options
    driver = DockerDriver(lane, folder / "run", service=service(folder), **options)
    rig = Rig(driver, folder, runtime)
    rig.many = 6
    async with _opened(rig):
        yield rig


@asynccontextmanager
async def podman_rig(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    """A `DockerDriver` with real containers of podman, whose service it starts itself."""
    async with docker_rig(folder, podman_service, **options) as rig:
        yield rig


@asynccontextmanager
async def microvm_rig(
    folder: Path,
    lane: int = LANE,
    runtime: str = "python",
    templates: Templates | None = None,
    **options: Any,
) -> AsyncIterator[Rig]:
    """A `MicroVmDriver`, by default with saved machines that are kept from one run of the tests to the next."""
    templates = templates or prepare_microvms()
    (folder / "packages").mkdir()
    options = {"runtimes": _installed()} | options
    driver = MicroVmDriver(lane, folder / "packages", folder / "run", templates, **options)
    rig = Rig(driver, folder, runtime)
    rig.many = 4
    rig.processes = 20
    async with _opened(rig):
        yield rig


@cache
def _templates() -> Templates:
    return Templates(MICROVMS, print)


def saved_machine(runtime: Runtime | None = None) -> Path:
    """Returns the folder of a saved machine, of the usual runtime by default; skips the test where none can be had."""
    missing = what_is_missing()
    require(missing is None, f"microVMs: {missing}")
    return _templates().of(runtime or _installed().resolve("python"), describe)


def prepare_microvms(*, linked: bool = False) -> Templates:
    """Returns saved machines, among them one of the usual runtime; skips the test where they cannot be had.

    Args:
        linked: whether there is to be one with a network device too.
    """
    saved_machine()
    if linked:
        _templates().of(_installed().resolve("python"), describe, linked=True)
    return _templates()


@asynccontextmanager
async def fake_rig(folder: Path) -> AsyncIterator[Rig]:
    """A `FakeDriver` whose functions do what the `SOURCES` do."""

    async def talk(request: FakeRequest) -> FakeResponse:
        request.log("said by the function")
        return FakeResponse(body=b"done")

    driver = FakeDriver({"echo": echo, "crash": crash, "hang": hang, "hog": run_out_of_memory, "talk": talk})
    driver.faults.load = {
        "unloadable": LoadFailed("ValueError", "this module has no wish to load", "Traceback")
    }
    driver.faults.load_delays = {"slow": 600.0}
    driver.faults.unforkable = {"threaded": Unforkable("loading it started a thread")}
    async with _opened(Rig(driver, folder)) as rig:
        yield rig


@asynccontextmanager
async def lasting(make: Callable[[Path], AbstractAsyncContextManager[Rig]]) -> AsyncIterator[Rig]:
    """A rig for all tests of a module: to open one takes longer than most of them. `Rig.clear` it after each."""
    if make is not fake_rig:
        require_root()
    with tempfile.TemporaryDirectory(prefix="martlet-") as folder:  # short, for sockets deep in it
        async with make(Path(folder)) as rig:
            yield rig


@asynccontextmanager
async def _opened(rig: Rig) -> AsyncIterator[Rig]:
    await rig.driver.open(lambda *exit: rig.exits.append(exit))
    try:
        yield rig
    finally:
        await rig.driver.close()
