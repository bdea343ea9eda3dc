"""Python dependencies: resolved and installed by uv into a package of their own.

Only wheels are installed, so nothing of what is downloaded runs while it is built. What is installed is named
by its lock and the interpreter: the same lock is installed once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from uv import find_uv_bin

from martlet.builder.builds import RunningBuild
from martlet.builder.command import CommandFailed, environment, run
from martlet.builder.packages import Claim
from martlet.builder.requirements import requirements
from martlet.errors import BuildFailed, Invalid
from martlet.package.packing import Package, pack
from martlet.package.rules import Limits
from martlet.package.unpacking import unpack

FIELD = "config.dependencies"
CODE, DEPENDENCIES = "/function", "/dependencies"
"""Where functions see their packages; compiled modules name their source there."""
WORTH_COMPILING = 16 * 1024
"""Bytes of Python source from which on it is compiled ahead: compiling takes about a millisecond for each KiB, at each
cold start, and a compiler of its own about a hundred, once."""

_COMPILER_MEMORY = 1024**3
"""Bytes it may take to compile other people's code: the compiler takes up to four hundred for each of theirs."""

_IDENTITY = "import sys, sysconfig; print(sys.version, sysconfig.get_platform())"


class PythonBuilder:
    """Installs requirements for one interpreter.

    Args:
        cache: a folder for wheels and for the record of what has been installed already.
        interpreter: the Python that functions run on.
        limits: the most the dependencies of a function may unpack to.
    """

    def __init__(self, cache: Path, interpreter: Path, limits: Limits) -> None:
        self._records = cache / "installed"
        self._interpreter = interpreter
        self._limits = limits
        self._identity = ""
        wheels = {} if "UV_CACHE_DIR" in os.environ else {"UV_CACHE_DIR": str(cache / "uv")}
        self._environment = environment("UV_", {**wheels, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"})
        self._records.mkdir(parents=True, exist_ok=True)

    def wanted(self, configured: Iterable[str], code: Path) -> list[str]:
        """Returns what a function needs, from its configuration or its code. Raises `Invalid`."""
        return requirements(configured, code)

    async def build(self, wanted: list[str], build: RunningBuild, claim: Claim, *, upgrade: bool) -> str:
        """Resolves, installs and stores; returns the digest of the package.

        A function that asks for what it asked for before gets what it got then, at once.

        Args:
            wanted: what to install, as `wanted` returns it.
            build: what this is a part of; told what is going on.
            claim: what the package is stored under.
            upgrade: whether to look for newer versions all the same.

        Raises:
            BuildFailed: there is no such package, or no wheel of it, or versions contradict each other, or what is
                installed is over the limits.
        """
        await self._identify()
        asked = self._record(build.build.function, *wanted)
        if not upgrade and (digest := await self._installed(asked, claim)):
            build.say("the dependencies are those of before")
            return digest
        lock = await self._lock(wanted, build)
        locked = self._record(lock)
        digest = await self._installed(locked, claim) or await self._install(build, claim)
        for record in (asked, locked):
            finished = build.folder / "record"
            finished.write_text(digest)
            finished.rename(record)
        return digest

    async def compile(self, code: Package, build: RunningBuild) -> Package:
        """Returns the code with its modules compiled, where that saves cold starts time."""
        unpacked = build.folder / "to-compile"
        if not await asyncio.to_thread(_unpack_if_large, code, unpacked):
            return code
        await self._compile(unpacked, CODE, build)
        return await asyncio.to_thread(pack, unpacked, build.folder / "compiled.tar.gz", self._limits)

    async def _identify(self) -> None:
        """Asks the interpreter, once, which version and platform it is."""
        if not self._identity:
            lines: list[str] = []
            command: list[str | Path] = [self._interpreter, "-I", "-c", _IDENTITY]
            await run(command, folder=self._records, environment=self._environment, on_line=lines.append)
            self._identity = " ".join(lines)

    def _record(self, *named: str) -> Path:
        """Returns the file that holds the digest of what was installed for this."""
        return self._records / hashlib.sha256("\n".join([self._identity, *named]).encode()).hexdigest()

    async def _installed(self, record: Path, claim: Claim) -> str | None:
        digest = await asyncio.to_thread(_read, record)
        return digest if digest is not None and await claim.has(digest) else None

    async def _lock(self, wanted: list[str], build: RunningBuild) -> str:
        build.say(f"resolving {', '.join(wanted)}")
        source, lock = build.folder / "requirements.in", build.folder / "requirements.lock"
        source.write_text("".join(f"{line}\n" for line in wanted))
        options: list[str | Path] = ["--output-file", lock, "--no-header", "--no-annotate", "--quiet"]
        await self._uv(["compile", source, *options], build)
        return lock.read_text()

    async def _install(self, build: RunningBuild, claim: Claim) -> str:
        target, lock = build.folder / "dependencies", build.folder / "requirements.lock"
        await self._uv(["install", "--requirements", lock, "--target", target, "--no-deps"], build)
        (target / ".lock").unlink(missing_ok=True)
        await self._compile(target, DEPENDENCIES, build)
        try:
            package = await asyncio.to_thread(
                pack, target, build.folder / "dependencies.tar.gz", self._limits
            )
        except Invalid as error:
            reason = error.detail.partition(": ")[2]
            raise BuildFailed(f"the dependencies cannot be packed: {reason}", field=FIELD) from None
        await asyncio.to_thread(rmtree, target)
        await claim.add(package)
        return package.digest

    async def _compile(self, target: Path, mount: str, build: RunningBuild) -> None:
        """Compiles modules ahead of time: functions cannot write, so each start would compile them anew.

        The results are never checked against their source, since files of a package have no times.
        """
        build.say("compiling")
        options: list[str | Path] = [
            "-q",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            target,
            "-p",
            mount,
        ]
        command = [self._interpreter, "-I", "-m", "compileall", *options, target]
        # There may be modules for other versions of Python, and some that are too large.
        with suppress(CommandFailed):
            await run(
                command,
                folder=build.folder,
                environment=self._environment,
                on_line=build.say,
                memory=_COMPILER_MEMORY,
            )

    async def _uv(self, arguments: list[str | Path], build: RunningBuild) -> None:
        options: list[str | Path] = [
            "--python",
            self._interpreter,
            "--only-binary",
            ":all:",
            "--color",
            "never",
        ]
        command = [find_uv_bin(), "pip", *arguments, *options]
        try:
            await run(command, folder=build.folder, environment=self._environment, on_line=build.say)
        except CommandFailed:
            reason = "the dependencies cannot be installed; the build's log says why"
            raise BuildFailed(reason, field=FIELD) from None


def _unpack_if_large(package: Package, folder: Path) -> bool:
    """Unpacks a package and says whether it has much Python source."""
    if package.bytes < WORTH_COMPILING:
        return False
    folder.mkdir()
    with package.path.open("rb") as file:
        unpack(file, package.digest, folder)
    return (
        sum(source.stat().st_size for source in folder.rglob("*.py") if source.is_file()) >= WORTH_COMPILING
    )


def _read(record: Path) -> str | None:
    try:
        return record.read_text()
    except FileNotFoundError:
        return None
