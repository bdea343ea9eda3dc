"""Builds as a runtime describes them: source becomes what runs, and dependencies a package of their own.

Commands run in the `workshop`. What they make is recorded under all that decides it, so that the same is built once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from martlet.builder import git
from martlet.builder.caches import Caches
from martlet.builder.identity import identity_of
from martlet.builder.packages import Claim, PackageStore
from martlet.builder.records import NOTHING, Records
from martlet.builder.running import RunningBuild
from martlet.builder.workshop import (
    CACHE,
    OUTPUT,
    PREPARED,
    SEARCH_PATH,
    SOURCE,
    CommandFailed,
    Job,
    Workshop,
)
from martlet.drivers.driver import DriverError
from martlet.errors import BuildFailed, Invalid, Unavailable
from martlet.model import FunctionConfig, GitSource
from martlet.package.packing import pack
from martlet.package.rules import Limits
from martlet.package.staging import remove_tree
from martlet.runtimes import Runtime
from martlet.runtimes.description import Dependencies, present
from martlet.runtimes.runtime import RUNTIME, RUNTIMES, SHIPPED

CODE_FIELD, DEPENDENCIES_FIELD, RUNTIME_FIELD = "code", "config.dependencies", "config.runtime"
_FAULTS = {
    CODE_FIELD: "the code does not build",
    DEPENDENCIES_FIELD: "the dependencies cannot be installed",
    RUNTIME_FIELD: "the runtime cannot be prepared for builds",
}
LOCK = "lock"
"""The file that the step of this name leaves: what is to be installed, to the last version."""
_LOCK_INSIDE = "/.lock"
_LONGEST_LOCK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built.

    Attributes:
        runtime: of the function.
        config: of the function.
        source: digest of the package with the source, which is stored.
        folder: the source, unpacked; only read.
        build: what this is a part of; told what is going on.
        claim: what packages are stored under.
        upgrade: whether to look for newer dependencies than those of before.
    """

    runtime: Runtime
    config: FunctionConfig
    source: str
    folder: Path
    build: RunningBuild
    claim: Claim
    upgrade: bool


class Builder:
    """See the module.

    Args:
        workshop: runs commands.
        packages: where packages are kept.
        folder: for records and caches.
        cache: bytes that all caches together may hold.
        prepared: for what all builds of a runtime have in common, where that is not beside the caches.
        limits: the most a package may hold.
        timeout: seconds that a command may take.
        lack: why commands have no network here, with what to do about it; None where they have.
    """

    def __init__(
        self,
        workshop: Workshop,
        packages: PackageStore,
        folder: Path,
        *,
        cache: int,
        prepared: Path | None = None,
        limits: Limits,
        timeout: float,
        lack: str | None,
    ) -> None:
        self._workshop = workshop
        self._packages = packages
        self._records = Records(folder / "built")
        self.caches = Caches(folder / "builds", cache)
        self._shared = self.caches if prepared is None else Caches(prepared, cache)
        self._limits = limits
        self._timeout = timeout
        self._lack = lack

    async def fetch(self, source: GitSource, build: RunningBuild) -> tuple[Path, str]:
        """Fetches source from git: see `git.fetch`."""
        return await git.fetch(self._workshop, source, build, self._timeout)

    async def code(self, order: Order) -> str:
        """Returns the digest of the package that runs: the source itself, or what is built of it.

        Raises:
            BuildFailed: it cannot be built; the message, or the build's log, says why.
            Unavailable: this machine does not let anything be built.
        """
        build, config = order.runtime.description.build, order.config
        if build is None or not await asyncio.to_thread(_is_needed, order):
            return order.source
        identity = await asyncio.to_thread(identity_of, order.runtime)
        decisive = (order.source, config.handler, str(config.memory), *config.dependencies)
        key = self._records.key("code", identity, *decisive)
        if digest := await self._records.find(key, order.claim):
            order.build.say("it was built before")
            return digest
        async with order.build.slot(), self._prepared(order, build.prepare, identity) as prepared:
            output = await self._run(
                order,
                build.command,
                "build",
                CODE_FIELD,
                network=build.network,
                in_place=True,
                named=prepared,
            )
            digest = await self._pack(order, output, CODE_FIELD, "what was built")
        await self._records.write([key], digest)
        return digest

    async def dependencies(self, order: Order) -> str | None:
        """Returns the digest of the package with what a function needs besides its code; None where that is nothing.

        A function that asks for what it asked for before gets what it got then, and the same lock is installed once.

        Raises:
            BuildFailed: there is no such thing, or it cannot be installed.
            Unavailable: as for `code`.
        """
        wanted = order.runtime.description.dependencies
        if wanted is None or not (order.config.dependencies or present(wanted.files, order.folder)):
            return None
        identity = await asyncio.to_thread(identity_of, order.runtime)
        decisive = await asyncio.to_thread(_decisive, wanted, order)
        asked = self._records.key("asked", order.build.build.function, identity, *decisive)
        if not order.upgrade and (digest := await self._records.find(asked, order.claim)) is not None:
            if digest != NOTHING:
                order.build.say("the dependencies are those of before")
            return digest or None
        async with order.build.slot():
            digest = await self._resolve(order, wanted, identity, asked)
        return digest or None

    async def _resolve(self, order: Order, wanted: Dependencies, identity: str, asked: str) -> str:
        folder = await self._run(order, (*wanted.command, LOCK), LOCK, DEPENDENCIES_FIELD, network=True)
        lock = await asyncio.to_thread(_read, folder / LOCK)
        if not lock.strip():
            await self._records.write([asked], NOTHING)
            return NOTHING
        locked = self._records.key("locked", identity, lock)
        digest = await self._records.find(locked, order.claim)
        if digest is None:
            output = await self._run(
                order,
                (*wanted.command, "install"),
                "install",
                DEPENDENCIES_FIELD,
                network=True,
                named={_LOCK_INSIDE: folder / LOCK},
            )
            digest = await self._pack(order, output, DEPENDENCIES_FIELD, "the dependencies")
        await self._records.write([asked, locked], digest)
        return digest

    @asynccontextmanager
    async def _prepared(
        self, order: Order, command: Sequence[str] | None, identity: str
    ) -> AsyncIterator[Mapping[str, Path]]:
        """Lends what builds of a runtime have in common, by the path where they see it; makes it where it is not there.

        It is made before any source is at hand, and builds only read it, so nobody's code can change another's build.
        """
        if command is None:
            yield {}
            return
        runtime, build = order.runtime, order.build

        async def make(folder: Path, lock: int) -> None:
            build.say(f"preparing {runtime.name}, once for all functions")
            given = {RUNTIME: runtime.folder, RUNTIMES: SHIPPED}
            job = Job(
                id=f"{build.build.id}-prepare",
                command=self._command(runtime, command),
                folders={CACHE: folder},
                named=given,
                shown=runtime.shown_to_builds,
                environment=self._usual(runtime, self._inside({CACHE: folder, **given})),
                held=(lock,),
            )
            try:
                await self._execute(job, build, RUNTIME_FIELD)
            except CommandFailed as error:
                raise self._failure(error, RUNTIME_FIELD, network=False) from None

        await self._workshop.prepare()
        async with self._shared.share(f"{runtime.name}-{identity}", make) as folder:
            yield {PREPARED: folder}

    async def _run(
        self,
        order: Order,
        command: Sequence[str],
        step: str,
        field: str,
        *,
        network: bool,
        in_place: bool = False,
        named: Mapping[str, Path] | None = None,
    ) -> Path:
        """Runs a command and returns the folder with what it has made.

        Args:
            order: what it works on.
            command: of the runtime's description.
            step: tells it from the others of the build.
            field: at fault where it fails.
            network: whether it may have one.
            in_place: whether the source, as the command leaves it, is what it has made where there is no output.
            named: what it sees besides.
        """
        runtime, build = order.runtime, order.build
        function = build.build.function
        work = build.folder / step
        await self._workshop.prepare()
        folders = {SOURCE: work / "source", OUTPUT: work / "output"}
        folders[OUTPUT].mkdir(parents=True)
        await self._packages.unpack(order.source, folders[SOURCE])
        async with self.caches.borrow(function, runtime.name) as (cache, lock):
            folders[CACHE] = cache
            given = {RUNTIME: runtime.folder, RUNTIMES: SHIPPED, **(named or {})}
            job = Job(
                id=f"{build.build.id}-{step}",
                command=self._command(runtime, command),
                folders=folders,
                named=given,
                shown=runtime.shown_to_builds,
                environment=self._environment(order, {**folders, **given}),
                network=network,
                held=(lock,),
            )
            if network and self._lack is not None:
                build.say(f"there is no network: {self._lack}")
            try:
                await self._execute(job, build, field)
            except CommandFailed as error:
                if error.limit == "system.build_disk":
                    await self.caches.clear(function, runtime.name)
                raise self._failure(error, field, network) from None
        if in_place and not any(folders[OUTPUT].iterdir()):
            return folders[SOURCE]
        return folders[OUTPUT]

    async def _execute(self, job: Job, build: RunningBuild, field: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._workshop.run(job, build.say)
        except TimeoutError:
            reason = f"{field}: the build took over {self._timeout:g} s (system.build_timeout)"
            raise BuildFailed(reason, field=field) from None
        except DriverError as error:
            raise Unavailable(f"nothing can be built on this machine: {error}") from None

    def _failure(self, error: CommandFailed, field: str, network: bool) -> BuildFailed:
        said = error.answer.get("message")
        if said is not None:
            return BuildFailed(said, field=error.answer.get("field", field))
        what = _FAULTS[field]
        if error.limit is not None:
            return BuildFailed(f"{what}: {error} ({error.limit})", field=field)
        why = f"; there was no network: {self._lack}" if network and self._lack is not None else ""
        return BuildFailed(f"{what} ({error}); the build's log says why{why}", field=field)

    def _command(self, runtime: Runtime, command: Sequence[str]) -> list[str]:
        program, *rest = runtime.command(command, confined=self._workshop.confined)
        return [shutil.which(program, path=_path(runtime)) or program, *rest]

    def _environment(self, order: Order, places: Mapping[str, Path]) -> dict[str, str]:
        inside = self._inside(places)
        config = order.config
        variables = {
            **self._usual(order.runtime, inside),
            "MARTLET_SOURCE": inside[SOURCE],
            "MARTLET_OUTPUT": inside[OUTPUT],
            "MARTLET_HANDLER": config.handler,
            "MARTLET_DEPENDENCIES": "\n".join(config.dependencies),
            "MARTLET_MEMORY": str(config.memory),
        }
        if _LOCK_INSIDE in inside:
            variables["MARTLET_LOCK"] = inside[_LOCK_INSIDE]
        if PREPARED in inside:
            variables["MARTLET_PREPARED"] = inside[PREPARED]
        if order.upgrade:
            variables["MARTLET_UPGRADE"] = "true"
        return variables

    def _usual(self, runtime: Runtime, inside: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": _path(runtime),
            "MARTLET_CACHE": inside[CACHE],
            "MARTLET_RUNTIME": inside[RUNTIME],
            "MARTLET_VERSION": runtime.version,
        }

    def _inside(self, places: Mapping[str, Path]) -> dict[str, str]:
        return {path: self._workshop.inside(path, folder) for path, folder in places.items()}

    async def _pack(self, order: Order, folder: Path, field: str, what: str) -> str:
        target = folder.with_name(f"{folder.name}.tar.gz")
        try:
            package = await asyncio.to_thread(pack, folder, target, self._limits)
        except Invalid as error:
            reason = error.detail.partition(": ")[2]
            raise BuildFailed(f"{what} cannot be packed: {reason}", field=field) from None
        await order.claim.add(package)
        await asyncio.to_thread(remove_tree, folder)
        return package.digest


def _is_needed(order: Order) -> bool:
    """Whether the source is built at all, or runs as it is."""
    build = order.runtime.description.build
    assert build is not None
    if build.when is not None and not (order.config.dependencies or present(build.when, order.folder)):
        return False
    return build.from_bytes == 0 or _size(order.folder) >= build.from_bytes


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _decisive(wanted: Dependencies, order: Order) -> list[str]:
    """Returns what dependencies follow from: the list, and the files that have one."""
    found = sorted(
        {path for pattern in wanted.files for path in order.folder.glob(pattern) if path.is_file()}
    )
    files = [
        f"{path.relative_to(order.folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in found
    ]
    return [*order.config.dependencies, "", *files]


def _path(runtime: Runtime) -> str:
    programs = [program for program in (runtime.program, *runtime.programs.values()) if program is not None]
    return os.pathsep.join(dict.fromkeys([*(str(program.parent) for program in programs), SEARCH_PATH]))


def _read(lock: Path) -> str:
    """Returns a lock, which a command has written; one that wrote none needs nothing."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(_LONGEST_LOCK).decode("utf-8", "replace")
