"""Python dependencies: resolved and installed by uv into a package of their own.

Only wheels are installed, so nothing of what is downloaded runs while it is built. What is installed is named by the
lock and the interpreter: the same lock is installed once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from uv import find_uv_bin

from martlet.builder.command import CommandFailed, environment, run
from martlet.builder.packages import Claim
from martlet.errors import BuildFailed
from martlet.package.packing import pack
from martlet.package.rules import Limits

FIELD = "config.dependencies"
MOUNT = "/dependencies"
"""Where functions see their dependencies; compiled modules name their source there."""

_IDENTITY = "import sys, sysconfig; print(sys.version, sys.implementation.cache_tag, sysconfig.get_platform())"

OnLine = Callable[[str], None]


class PythonBuilder:
    """Installs requirements for one interpreter.

    Args:
        cache: a folder for wheels and for the record of what has been installed already.
        interpreter: the Python that functions run on.
        limits: the most the dependencies of a function may unpack to.
    """

    def __init__(self, cache: Path, interpreter: Path, limits: Limits) -> None:
        self._locks = cache / "locks"
        self._interpreter = interpreter
        self._limits = limits
        self._identity = ""
        wheels = {} if "UV_CACHE_DIR" in os.environ else {"UV_CACHE_DIR": str(cache / "uv")}
        self._environment = environment("UV_", {**wheels, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"})
        self._locks.mkdir(parents=True, exist_ok=True)

    async def build(self, requirements: list[str], work: Path, claim: Claim, on_line: OnLine) -> str:
        """Resolves, installs and stores; returns the digest of the package.

        Args:
            requirements: what to install, as `requirements.requirements` returns it.
            work: a folder to work in.
            claim: what the package is stored under.
            on_line: told what is going on, line by line.

        Raises:
            BuildFailed: there is no such package, versions contradict each other, there is no wheel …; the lines say.
            Invalid: what is installed is over the limits.
        """
        on_line(f"resolving {', '.join(requirements)}")
        lock = await self._lock(requirements, work, on_line)
        record = self._locks / hashlib.sha256(f"{await self._interpreter_identity()}\n{lock}".encode()).hexdigest()
        if record.exists() and await claim.has(digest := record.read_text()):
            on_line("these versions are installed already")
            return digest
        target = work / "dependencies"
        await self._install(work, target, on_line)
        package = await asyncio.to_thread(pack, target, work / "dependencies.tar.gz", self._limits)
        await asyncio.to_thread(rmtree, target)
        await claim.add(package)
        finished = work / "record"
        finished.write_text(package.digest)
        finished.rename(record)
        return package.digest

    async def _lock(self, requirements: list[str], work: Path, on_line: OnLine) -> str:
        wanted, lock = work / "requirements.in", work / "requirements.lock"
        wanted.write_text("".join(f"{line}\n" for line in requirements))
        options = ["--output-file", lock, "--no-header", "--no-annotate", "--quiet"]
        await self._uv(["compile", wanted, *options], work, on_line)
        return lock.read_text()

    async def _install(self, work: Path, target: Path, on_line: OnLine) -> None:
        options = ["--requirements", work / "requirements.lock", "--target", target, "--no-deps"]
        await self._uv(["install", *options], work, on_line)
        (target / ".lock").unlink(missing_ok=True)
        on_line("compiling")
        # Hashed and never checked against the source: packages have no times, and functions cannot write.
        compile_all = ["-m", "compileall", "-q", "-q", "--invalidation-mode", "unchecked-hash"]
        paths = ["-s", target, "-p", MOUNT, target]
        with suppress(CommandFailed):  # a package may carry files for other versions of Python
            await run(
                [self._interpreter, "-I", *compile_all, *paths],
                folder=work,
                environment=self._environment,
                on_line=on_line,
            )

    async def _uv(self, arguments: list[str | Path], work: Path, on_line: OnLine) -> None:
        fixed = ["--python", self._interpreter, "--only-binary", ":all:", "--color", "never"]
        command = [find_uv_bin(), "pip", *arguments, *fixed]
        try:
            await run(command, folder=work, environment=self._environment, on_line=on_line)
        except CommandFailed:
            raise BuildFailed("the dependencies cannot be installed; the log says why", field=FIELD) from None

    async def _interpreter_identity(self) -> str:
        if not self._identity:
            lines: list[str] = []
            command = [self._interpreter, "-I", "-c", _IDENTITY]
            await run(command, folder=self._locks, environment=self._environment, on_line=lines.append)
            self._identity = " ".join(lines)
        return self._identity
