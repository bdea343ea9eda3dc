"""The schema of ``runtime.toml``: how functions of a language are built and started, as data.

What is between braces in a command stands for something that is found on the machine: see `runtime.Runtime.command`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from martlet.errors import Invalid
from martlet.model import Frozen, Integer
from martlet.validation import validated

FILE = "runtime.toml"
PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z0-9_.+-]+)\}")
"""A placeholder of a command; ``${NAME}`` is left to the shell."""
EVERYWHERE = frozenset({"runtime", "runtimes", "interpreter"})
"""The placeholders that every command may have."""
PROGRAM = "program"


def _relative(pattern: str) -> str:
    parts = pattern.split("/")
    if not all(parts) or {".", "..", "**"} & set(parts):
        raise ValueError(f"{pattern!r} is no pattern of a file: write a name (*.js) or a path (src/main.js)")
    return pattern


Pattern = Annotated[str, AfterValidator(_relative)]
"""A file at the top of a package (``package.json``, ``*.js``), or a path below it (``src/main.js``)."""
Command = Annotated[tuple[str, ...], Field(min_length=1)]
"""A program and its arguments, which may have placeholders."""


def present(patterns: Iterable[str], folder: Path) -> bool:
    """Whether a folder has what one of these patterns (see `Pattern`) names: a file, or a folder of just that name."""
    found = ((pattern, path) for pattern in patterns for path in folder.glob(pattern))
    return any(path.is_file() or path == folder / pattern for pattern, path in found)


class Program(Frozen):
    """A program that a language needs. A field's description is what docs/runtimes.md prints."""

    programs: tuple[str, ...] = Field(
        min_length=1,
        description="Names it may have, the preferred first: looked for in `PATH` and in the folders of "
        "`system.toolchains_path` (`*/bin`, `bin`, `*`, `node_modules/.bin`). `*`, `?` and `[0-9]` match. With a `/` "
        "it is a path: absolute, from `~/`, or below a folder of toolchains.",
    )
    shows: Integer = Field(
        0,
        ge=0,
        le=5,
        description="How many folders above the program's own (its links resolved) a sandbox must show; `0`: its own. "
        "What is in `/usr` is shown anyway.",
    )
    etc: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?-][A-Za-z0-9_.*?-]*$")], ...] = Field(
        (), description="Folders in `/etc` that it reads, as patterns: those that are there are shown too."
    )
    debian: tuple[str, ...] = Field((), description="The Debian packages that have it.")
    hint: str | None = Field(None, description="Another way to install it, in one sentence.")

    @property
    def key(self) -> str:
        """Its placeholder: the first of its names, without wildcards and folders."""
        return re.split(r"[*?\[]", self.programs[0].rpartition("/")[2])[0]


class Also(Program):
    """A further program."""

    purpose: Literal["runs", "builds"] = Field(
        alias="for",
        description="`runs`: without it there is no such runtime; `builds`: without it functions run, and only those "
        "that need no build can be deployed.",
    )


class Toolchain(Program):
    """The program that makes a runtime, each version of it one of its own."""

    version: Command = Field(
        description="What prints its version, the first dotted number on stdout or stderr: "
        '`["{program}", "--version"]`.'
    )
    least: str | None = Field(None, pattern=r"^\d+(\.\d+)*$", description="The oldest version that will do.")
    alone: bool = Field(
        False,
        strict=True,
        description="Whether its program takes no other file but libraries: then guests of microVMs run that of this "
        "machine, and else the one of `debian`.",
    )
    also: tuple[Also, ...] = Field((), description="Further programs it takes.")


class Dependencies(Frozen):
    """How dependencies become a package of their own, which functions see at ``/dependencies``."""

    files: tuple[Pattern, ...] = Field(
        (), description="What decides them, besides `config.dependencies`; patterns as in `announced_by`."
    )
    command: Command = Field(
        description="What installs them. It is run with the argument `lock` first, and writes what it resolves to "
        "`$MARTLET_OUTPUT/lock` (nothing: there are none); then, unless that has been installed before, with "
        "`install`, to install what is in the file `$MARTLET_LOCK`."
    )


class Build(Frozen):
    """How source becomes the package that runs."""

    when: tuple[Pattern, ...] | None = Field(
        None,
        description="Build only where one of these is there, or `config.dependencies` is not empty; patterns as in "
        "`announced_by`. By default always.",
    )
    from_bytes: Integer = Field(0, ge=0, description="Build only source of at least so many bytes.")
    command: Command = Field(description='What builds; see "Builds" in design.md.')
    network: bool = Field(False, strict=True, description="Whether it reaches other machines.")
    prepare: Command | None = Field(
        None,
        description="What makes, in `$MARTLET_CACHE`, what all builds have in common, such as a compiled standard "
        "library. It runs before the first build with a toolchain and this folder, without source and network; builds "
        "find it, read-only, in `$MARTLET_PREPARED`.",
    )


class Start(Frozen):
    """How an instance is started: a module for Python's zygote, or a program of the language."""

    command: Command | None = Field(None, description="The program that serves.")
    module: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="In place of `command`: the Python module in the runtime's folder that a zygote imports and forks "
        "cells from.",
    )
    cell: Literal["warm", "cold"] = Field(
        "warm",
        description="`warm`: started before there is code, and kept ready; `cold`: started with the code.",
    )
    listen: Literal["descriptor", "socket", "port", "stdio", "assignments"] = Field(
        "descriptor",
        description="`descriptor`: it accepts on descriptor 3; `socket`: it makes the socket `MARTLET_SOCKET` itself; "
        "`port`: it listens on the TCP port `PORT`; `stdio`: it serves requests one by one on stdin and stdout; "
        "`assignments`: it forks a process for each request, which comes as a script that sets variables.",
    )
    cells: Integer | None = Field(
        None,
        ge=0,
        le=1000,
        description="At most so many ready cells a lane; by default as many as are wanted.",
    )
    environment: dict[str, str] = Field({}, description="Environment variables of the program.")

    @model_validator(mode="after")
    def _one_way(self) -> Start:
        if (self.command is None) == (self.module is None):
            raise ValueError("it takes either command or module")
        return self


class Description(Frozen):
    """A ``runtime.toml``."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]*[a-z])?$",
        description="The language, as `config.runtime` says it. It ends with a letter: versions are put behind it.",
    )
    title: str = Field(min_length=1, description="What people call it.")
    version_parts: Integer = Field(
        0,
        ge=0,
        le=3,
        description="Numbers of the version in the name: `python3` (1), `python3.11` (2), `http` (0).",
    )
    announced_by: tuple[Pattern, ...] = Field(
        (),
        description="What says that a package is of this language: files at its top (`*.js`), or paths of files or "
        "folders (`src/main.js`).",
    )
    rank: Integer = Field(50, ge=0, description="Of several that are announced the lowest is taken.")
    inline_file: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="The file that inline code becomes; absent: there is no inline code.",
    )
    toolchain: Toolchain | None = Field(
        None, description="What it needs of the machine; absent: nothing beyond Martlet."
    )
    dependencies: Dependencies | None = Field(None, description="How dependencies are installed.")
    build: Build | None = Field(None, description="How source becomes what runs; absent: it runs as it is.")
    start: Start = Field(description="How an instance is started.")

    @model_validator(mode="after")
    def _versions_are_found(self) -> Description:
        if self.version_parts and self.toolchain is None:
            raise ValueError("version_parts takes a [toolchain] that has a version")
        return self

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Description:
        known = set(EVERYWHERE)
        if self.toolchain is not None:
            known |= {PROGRAM, *(program.key for program in self.toolchain.also)}
        _check_placeholders(self._commands(), known)
        if self.toolchain is not None:
            _check_placeholders(self.toolchain.version, {PROGRAM, "interpreter"})
        return self

    def _commands(self) -> Iterable[str]:
        yield from self.start.command or ()
        yield from self.start.environment.values()
        for part in (self.build, self.dependencies):
            yield from part.command if part is not None else ()
        yield from (self.build.prepare if self.build is not None else None) or ()

    @property
    def runs_by_toolchain(self) -> bool:
        """Whether what it starts takes a program of its toolchain; else only its builds do."""
        texts = (*(self.start.command or ()), *self.start.environment.values())
        return any(name not in EVERYWHERE for text in texts for name in PLACEHOLDER.findall(text))

    def announced_in(self, folder: Path) -> bool:
        """Whether the files in a folder say that they are of this language."""
        return present(self.announced_by, folder)


def _check_placeholders(texts: Iterable[str], known: set[str]) -> None:
    for placeholder in (name for text in texts for name in PLACEHOLDER.findall(text)):
        if placeholder not in known:
            names = ", ".join(f"{{{name}}}" for name in sorted(known))
            raise ValueError(f"{{{placeholder}}} stands for nothing; there are {names}")


def read_description(path: Path) -> Description:
    """Reads a ``runtime.toml``.

    Raises:
        Invalid: it cannot be read, is no TOML, or has a key that is missing, unknown or of the wrong kind; the message
            names the file.
    """
    try:
        document = tomllib.loads(path.read_text())
        return validated(Description, document)
    except Invalid as error:
        raise Invalid(f"{path}: {error.detail}") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Invalid(f"{path} is not TOML: {error}") from None
