"""How cells of a runtime are started: what their zygote imports, and the program that this starts, if there is one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from martlet.runtimes.runtime import RUNTIME, RUNTIMES, SHIPPED, Runtime
from martlet.sandbox.program import Program

WARDEN, WARDEN_FOLDER = "_martlet_program", SHIPPED / "program"
_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True, slots=True)
class Startup:
    """See the module.

    Attributes:
        module: what cells run.
        module_folder: the folder that it is imported from.
        program: what it starts; None: it runs functions itself.
        shown: folders that the sandbox shows beside the system's, by where they are seen.
    """

    module: str
    module_folder: Path
    program: Program | None
    shown: dict[str, str]

    @classmethod
    def of(cls, runtime: Runtime, *, confined: bool) -> Startup:
        """Returns how cells of a runtime are started; ``confined``: in a private root.

        Raises:
            Invalid: it lacks a program.
        """
        start = runtime.description.start
        shown = {str(folder): str(folder) for folder in runtime.shown}
        if start.command is None:
            assert start.module is not None
            return cls(start.module, runtime.folder, None, shown)
        programs = [path for path in (runtime.program, *runtime.programs.values()) if path is not None]
        program = Program(
            command=runtime.command(start.command, confined=confined),
            environment={"PATH": _path_to(programs)} | runtime.environment(confined=confined),
            cell=start.cell,
            listen=start.listen,
        )
        return cls(
            WARDEN,
            WARDEN_FOLDER,
            program,
            shown | _folders(runtime, confined),
        )

    @property
    def seen_folder(self) -> str:
        """Where a sandbox that has the runtime's folders at their usual places sees the folder of the module."""
        folder = self.module_folder
        return f"{RUNTIMES}/{folder.relative_to(SHIPPED)}" if folder.is_relative_to(SHIPPED) else RUNTIME


def _folders(runtime: Runtime, confined: bool) -> dict[str, str]:
    own, shipped = str(runtime.folder), str(SHIPPED)
    return {RUNTIME: own, RUNTIMES: shipped} if confined else {own: own, shipped: shipped}


def _path_to(programs: Iterable[Path]) -> str:
    """Returns a ``PATH`` with which functions find the programs of their language too."""
    return os.pathsep.join(dict.fromkeys([*_PATH, *(str(program.parent) for program in programs)]))
