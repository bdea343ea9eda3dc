"""The platform's own interpreter for roots that have none: with its loader and libraries, it needs nothing of them.

It starts in an image that nobody trusts, and before its system calls are filtered. So nothing that it loads is looked
for in the image: each library is named by the path that it is shown at.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import martlet
from martlet.drivers.driver import DriverError
from martlet.runtimes.interpreter import INTERPRETER, PREFIX

PLACE = "/.interpreter"
"""Where a root shows it."""
ENVIRONMENT = ("PATH=/nonexistent", "HOME=/tmp", "LC_ALL=C", "TZ=/dev/null")
"""With which it reads neither locales nor time zones of the image."""
_PROGRAMS, _LIBRARIES = f"{PLACE}/bin", f"{PLACE}/libraries"
_ASK = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
for name in sys.argv[3:]:
    importlib.import_module(name)
from martlet.sandbox import loaded
loaded.main()
"""
_ASK_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """See the module.

    Attributes:
        binds: what is shown of the host, by where it is seen.
        command: how it is started, without its options.
    """

    binds: Mapping[str, str]
    command: Sequence[str]

    @classmethod
    def make(cls, folder: Path, modules: Path, names: Sequence[str]) -> Interpreter:
        """Finds out what it takes on this machine.

        Args:
            folder: where the places for it are made.
            modules: a folder of modules.
            names: of those, and of the platform's own, what it is to be able to import.

        Raises:
            DriverError: it does not start.
        """
        own = Path(martlet.__file__).parent.parent
        command = [str(INTERPRETER), "-I", "-S", "-X", "utf8", "-c", _ASK, str(own), str(modules), *names]
        try:
            asked = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={},
                timeout=_ASK_SECONDS,
                check=True,
            )
            return _of(folder, json.loads(asked.stdout))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise DriverError(f"{INTERPRETER} cannot be shown in an image: {error}") from error


def _of(folder: Path, loaded: dict[str, Any]) -> Interpreter:
    standard = Path(loaded["standard"])
    modules = f"{PLACE}/{standard.relative_to(PREFIX)}"
    program = f"{_PROGRAMS}/{INTERPRETER.name}"
    libraries = {
        f"{_LIBRARIES}/{Path(path).name}": path
        for path in loaded["libraries"]
        if not Path(path).is_relative_to(standard)
    }
    command = [program]
    files = {program: str(INTERPRETER), **libraries}
    if loaded["loader"] is not None:
        loader = f"{_LIBRARIES}/{Path(loaded['loader']).name}"
        files[loader] = loaded["loader"]
        command = [loader, "--library-path", _LIBRARIES, "--preload", ":".join(libraries), program]
    for place in (_PROGRAMS, _LIBRARIES, modules):
        _inside(folder, place).mkdir(parents=True, exist_ok=True)
    for place in files:
        _inside(folder, place).touch()
    return Interpreter({PLACE: str(folder), modules: str(standard), **files}, command)


def _inside(folder: Path, place: str) -> Path:
    return folder / place.removeprefix(f"{PLACE}/")
