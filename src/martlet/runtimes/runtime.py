"""A language in a version that this machine has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from martlet.errors import Invalid
from martlet.model import Frozen
from martlet.runtimes.description import PLACEHOLDER, PROGRAM, Also, Description
from martlet.runtimes.interpreter import INTERPRETER

SHIPPED = Path(__file__).parent
"""The folder of the runtimes that come with Martlet."""
RUNTIME, RUNTIMES = "/.runtime", "/.runtimes"
"""Where a sandbox shows the folder of its runtime, and `SHIPPED`."""


class Runtime(Frozen):
    """See the module.

    Attributes:
        name: the exact name (``node20``), which never means another version.
        names: every name it answers to, the shortest first; a shorter one answers with the newest version there is.
        version: the full version (``20.20.2``); empty where the language has no versions.
        interpreter: the Python that serves it, or that starts its program.
        folder: where its ``runtime.toml`` and its shim are.
        program: the program of its toolchain, if it has one, with links resolved.
        programs: the further ones, by the name of their placeholder.
        lacks: the programs that are missing for builds.
        shown: the folders that a sandbox must show for it at their own paths, besides the system's.
        shown_to_builds: those that builds need; it has those of ``shown`` too.
        description: what its ``runtime.toml`` says.
    """

    name: str
    names: tuple[str, ...]
    version: str
    folder: Path
    interpreter: Path = INTERPRETER
    program: Path | None = None
    programs: dict[str, Path] = Field({})
    lacks: tuple[Also, ...] = ()
    shown: tuple[Path, ...] = ()
    shown_to_builds: tuple[Path, ...] = ()
    description: Description

    @property
    def builds(self) -> bool:
        """Whether all is there that its builds take."""
        return not self.lacks

    def command(self, command: Iterable[str], *, confined: bool = True) -> list[str]:
        """Returns a command, or other texts, with each placeholder filled.

        Args:
            command: of the description.
            confined: whether it runs in a sandbox, which shows the runtime's folder at `RUNTIME` and the shipped ones
                at `RUNTIMES`, or else outside of one, where they are at their own paths.

        Raises:
            Invalid: it takes a program that this machine does not have.
        """
        filled = {name: str(path) for name, path in self.programs.items()}
        filled["interpreter"] = str(self.interpreter)
        filled["runtime"] = RUNTIME if confined else str(self.folder)
        filled["runtimes"] = RUNTIMES if confined else str(SHIPPED)
        if self.program is not None:
            filled[PROGRAM] = str(self.program)
        for missing in self.lacks:
            if any(f"{{{missing.key}}}" in text for text in command):
                raise Invalid(
                    f"{self.description.title} takes {missing.key} to build, which is not on this machine"
                )
        return [PLACEHOLDER.sub(lambda found: filled[found[1]], text) for text in command]

    def environment(self, *, confined: bool = True) -> dict[str, str]:
        """Returns the environment variables that ``[start]`` names; ``confined`` as in `command`."""
        variables = self.description.start.environment
        return dict(zip(variables, self.command(variables.values(), confined=confined), strict=True))
