"""The runtimes that this machine has, read from ``runtimes/<language>/runtime.toml``.

A folder says what a language needs; here is found out which version of it there is. A runtime answers to its
language and to the beginnings of its version: Python 3.11.7 to ``python``, ``python3`` and ``python3.11``. A name with
another version is refused rather than served by the wrong one.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

from martlet.errors import Invalid
from martlet.model import Frozen

FIELD = "config.runtime"
"""The field that errors name: where a user says which runtime a function has."""


class Description(Frozen):
    """A ``runtime.toml``.

    Attributes:
        name: what the language is called in names of runtimes.
        title: what people call it.
        interpreter: what runs it: ``python`` is the Python that Martlet itself was installed with, without the
            packages of Martlet's environment.
        default_handler: the handler where a function names none.
        inline_file: what the file of a function is called whose code is given as text.
        announced_by: patterns of files at the top of a package that say it is of this language.
        shim: the module that a zygote imports from this folder. It has ``warm()``, and in each cell
            ``serve(listener, prepare)``.
        program: the same as a program, for sandboxes that start it anew.
    """

    name: str
    title: str
    interpreter: Literal["python"]
    default_handler: str
    inline_file: str
    announced_by: tuple[str, ...]
    shim: str
    program: str


class Runtime(Frozen):
    """A language in the version that is here.

    Attributes:
        name: the exact name (``python3.11``), which never means another version.
        names: every name it answers to, the shortest first.
        version: the full version (``3.11.7``).
        interpreter: the program that runs it.
        folder: where its shim is.
        description: what its ``runtime.toml`` says.
    """

    name: str
    names: tuple[str, ...]
    version: str
    interpreter: Path
    folder: Path
    description: Description


class Catalogue:
    """Every runtime of this machine."""

    def __init__(self, runtimes: Iterable[Runtime]) -> None:
        self._runtimes = tuple(runtimes)
        self._by_name = {name: runtime for runtime in self._runtimes for name in runtime.names}

    @classmethod
    def load(cls, folder: Path = Path(__file__).parent) -> Self:
        """Reads every ``runtime.toml`` one level below ``folder``.

        Raises:
            pydantic.ValidationError: a file has a key that is missing, unknown, or of the wrong type.
            tomllib.TOMLDecodeError: a file is not TOML.
        """
        return cls(_found(path) for path in sorted(folder.glob("*/runtime.toml")))

    def available(self) -> tuple[Runtime, ...]:
        """Returns the runtimes, by name."""
        return self._runtimes

    def resolve(self, name: str) -> Runtime:
        """Returns the runtime that answers to a name.

        Raises:
            Invalid: none does; the message lists the names that are known.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name))
            raise Invalid(f"this machine has no runtime {name!r}; it has {known}", field=FIELD) from None

    def detect(self, files: Iterable[str]) -> Runtime:
        """Returns the runtime that the files at the top of a package announce.

        Args:
            files: their names.

        Raises:
            Invalid: they announce none; the message says which files would.
        """
        names = list(files)
        patterns: list[str] = []
        for runtime in self._runtimes:
            announced_by = runtime.description.announced_by
            if any(fnmatchcase(name, pattern) for name in names for pattern in announced_by):
                return runtime
            patterns += announced_by
        raise Invalid(
            f"no file at the top of the package says which runtime it is for ({', '.join(patterns)}): "
            "set the runtime, or check that the files are not in a folder of their own",
            field=FIELD,
        )


def _found(path: Path) -> Runtime:
    description = Description.model_validate(tomllib.loads(path.read_text()))
    major, minor, _ = platform.python_version_tuple()
    names = (description.name, f"{description.name}{major}", f"{description.name}{major}.{minor}")
    return Runtime(
        name=names[-1],
        names=names,
        version=platform.python_version(),
        interpreter=Path(getattr(sys, "_base_executable", sys.executable)),
        folder=path.parent,
        description=description,
    )
