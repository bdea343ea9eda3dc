"""One run of a function in a sandbox whose denied system calls are heard."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import NamedTuple

from martlet.builder.source import Local, make_package
from martlet.drivers.driver import CellSpec, Handle, LoadFailed
from martlet.drivers.process import ProcessDriver
from martlet.errors import Invalid
from martlet.http.fetch import FetchError, fetch
from martlet.model import FunctionConfig, Network, Revision
from martlet.package.rules import Limits
from martlet.package.unpacking import unpack
from martlet.runtimes import Catalogue
from martlet.sandbox.seccomp.denials import Denial, Observer
from martlet.sandbox.seccomp.policy import Policy
from martlet.settings import Settings

_LANE = 255
"""The last of those that user ids are set aside for: no platform of this machine has so many."""


class Request(NamedTuple):
    """What the function is asked; ``document`` is sent as JSON, unless it is None."""

    method: str
    path: str
    document: object


@dataclass(slots=True)
class Observation:
    """What was denied, how often, and how the function answered: with a status, or not at all because of a failure."""

    denials: Counter[Denial] = field(default_factory=Counter)
    status: int | None = None
    failure: str | None = None


async def observe(
    settings: Settings, source: Path, dependencies: Path | None, config: FunctionConfig, request: Request
) -> Observation:
    """Loads a function, sends it one request, and returns what it was denied meanwhile.

    A function that reaches other machines (``egress``) reaches none here.

    Args:
        settings: of a platform that would run it.
        source: its folder or file.
        dependencies: the folder of its packages, or None.
        config: how it is run.
        request: what it is asked.

    Raises:
        Invalid: ``source`` is no package, or there is no such folder of dependencies.
        DriverError: this host cannot run it.
    """
    observation = Observation()
    if config.network is Network.EGRESS:  # whose addresses belong to the platform that may run here
        config = config.model_copy(update={"network": Network.NONE, "egress_to": ()})
    with TemporaryDirectory(prefix="martlet-denied-") as folder:
        packages, run = Path(folder) / "packages", Path(folder) / "run"
        packages.mkdir()
        code = _unpacked(source, packages, config, settings)
        if dependencies is not None:
            dependencies = _copied(dependencies, packages / "dependencies")
        observers = _Observers(observation.denials)
        driver = ProcessDriver(
            _LANE,
            packages,
            run,
            isolation=settings.system.process_isolation_level,
            allow_host_network=settings.system.allow_host_network,
            runtimes=Catalogue.of(settings.system),
            on_observed=observers.add,
        )
        revision = Revision(function="observed", number=1, config=config, code="0" * 64, created=0.0)
        try:
            await driver.open(lambda *_: None)
            cell = CellSpec("observed", config.runtime, config.network, run / "cell")
            cell.directory.mkdir(parents=True)
            handle = await driver.start(cell)
            with _unread(handle):
                deadline = settings.system.cold_start_timeout
                await driver.specialise(handle, revision, code, dependencies, deadline)
                method, path, document = request
                observation.status, _ = await fetch(
                    handle.socket, method, path, document, timeout=config.timeout
                )
        except (LoadFailed, FetchError) as error:
            observation.failure = str(error)
        finally:
            await driver.close()
            observers.close()
    return observation


class _Observers:
    """Answers whatever is denied to the instances, and counts it."""

    def __init__(self, denials: Counter[Denial]) -> None:
        self._denials = denials
        self._observers: list[Observer] = []

    def add(self, instance: str, listener: int) -> None:
        observer = Observer(listener, Policy.load())
        self._observers.append(observer)
        asyncio.get_running_loop().add_reader(listener, self._hear, observer)

    def _hear(self, observer: Observer) -> None:
        self._denials.update(observer.hear())
        if observer.over:
            asyncio.get_running_loop().remove_reader(observer.listener)

    def close(self) -> None:
        for observer in self._observers:
            asyncio.get_running_loop().remove_reader(observer.listener)
            observer.close()


@contextmanager
def _unread(handle: Handle) -> Iterator[None]:
    """Empties the log of an instance, which would wait once it is full."""
    loop, log = asyncio.get_running_loop(), os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)
    loop.add_reader(log, os.read, log, 65536)
    try:
        yield
    finally:
        loop.remove_reader(log)
        os.close(log)


def _unpacked(source: Path, packages: Path, config: FunctionConfig, settings: Settings) -> Path:
    """Makes a package of a source, as a deploy does, and returns where it lies unpacked."""
    limits = Limits(bytes=settings.system.max_package, entries=settings.system.max_package_files)
    inline_file = Catalogue.of(settings.system).resolve(config.runtime).description.inline_file
    code = packages / "code"
    code.mkdir()
    with TemporaryDirectory(prefix="martlet-denied-") as work:
        package, _ = make_package(Local(source), Path(work), inline_file, limits)
        with package.path.open("rb") as file:
            unpack(file, package.digest, code)
    return code


def _copied(dependencies: Path, target: Path) -> Path:
    if not dependencies.is_dir():
        raise Invalid(f"there is no folder {dependencies}", field="dependencies")
    copytree(dependencies, target, symlinks=True)
    return target
