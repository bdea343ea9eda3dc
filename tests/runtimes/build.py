"""Functions built and served by themselves: with the runtimes of this machine, and without a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from martlet.builder.caches import Caches
from martlet.builder.identity import identity_of
from martlet.runtimes import Catalogue
from martlet.runtimes.runtime import Runtime
from martlet.settings import SystemSettings
from tests.conftest import TOOLCHAINS, require
from tests.runtimes import shim

PREPARED = Caches(TOOLCHAINS / "prepared", 1 << 40)


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made: the folder that it worked in, its exit code and its log, and what it said to the user."""

    folder: Path
    code: int
    log: str
    answer: str


def find(name: str) -> Runtime:
    """Returns a runtime by any of its names; ends the test where this machine does not have it."""
    catalogue = Catalogue.of(SystemSettings(toolchains_path=(TOOLCHAINS,)))
    found = next((runtime for runtime in catalogue.available() if name in runtime.names), None)
    reasons = {absent.name: absent.reason for absent in catalogue.absent()}
    require(found, f"{name}: {reasons.get(name.rstrip('0123456789.'), 'there is no such version')}")
    assert found is not None
    return found


def build(runtime: Runtime, folder: Path, handler: str = "handle") -> Built:
    """Builds the function in a folder, in place; the builds of a language share a cache, those of later runs too."""
    description = runtime.description.build
    assert description is not None
    cache = TOOLCHAINS / "caches" / runtime.description.name
    cache.mkdir(parents=True, exist_ok=True)
    variables = {
        "MARTLET_SOURCE": str(folder),
        "MARTLET_CACHE": str(cache),
        "MARTLET_DEPENDENCIES": "",
        "MARTLET_HANDLER": handler,
        "MARTLET_MEMORY": str(128 << 20),
    }
    if description.prepare is not None:
        variables["MARTLET_PREPARED"] = asyncio.run(_prepared(runtime, description.prepare, folder))
    return _run(runtime, description.command, folder, variables)


async def _prepared(runtime: Runtime, command: Sequence[str], folder: Path) -> str:
    """Returns the folder of what all builds of a runtime have in common: the one that platforms of the tests have."""

    async def make(made: Path, lock: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            done = _run(runtime, command, Path(work), {"MARTLET_CACHE": str(made)})
        assert done.code == 0, done.log

    async with PREPARED.share(f"{runtime.name}-{identity_of(runtime)}", make) as prepared:
        return str(prepared)


def _run(runtime: Runtime, command: Sequence[str], folder: Path, variables: dict[str, str]) -> Built:
    places = dict.fromkeys(str(path.parent) for path in (runtime.program, *runtime.programs.values()) if path)
    answer = folder.with_name(f"{folder.name}.answer")
    usual = {
        "PATH": os.pathsep.join([*places, os.environ["PATH"]]),
        "HOME": str(folder.parent),
        "TMPDIR": str(folder.parent),
        "MARTLET_RUNTIME": str(runtime.folder),
    }
    done = subprocess.run(
        [
            *("sh", "-c", 'answer=$1; shift; exec "$@" 4>"$answer"', "sh", answer),
            *runtime.command(command, confined=False),
        ],
        cwd=folder,
        env=usual | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Built(folder, done.returncode, done.stdout, answer.read_text())


@contextlib.contextmanager
def serving(runtime: Runtime, folder: Path, log: Path, **settings: Any) -> Iterator[shim.Shim]:
    """Serves what lies in a folder, built if it must be; see `shim.running` for the settings.

    What it prints goes to the file ``log``.
    """
    start = runtime.description.start
    assert start.command is not None
    with (
        log.open("ab") as file,
        shim.running(
            runtime.command(start.command, confined=False),
            folder,
            environment=runtime.environment(confined=False),
            listen=start.listen,
            log=file,
            **settings,
        ) as running,
    ):
        assert "mode" in running.answer, running.answer or log.read_text()
        yield running
