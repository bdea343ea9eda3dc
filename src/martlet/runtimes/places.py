"""Where programs are looked for."""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import filter as matching
from pathlib import Path

from martlet.runtimes.interpreter import INTERPRETER, PREFIX

_LAYOUTS = ("*/bin", "bin", "*", "node_modules/.bin")
"""The folders of programs below one of toolchains."""
_SYSTEM = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")))
_BROAD_DEPTH = 2
_WILDCARD = re.compile(r"[*?\[]")


class Places:
    """The folders of toolchains and those in ``PATH``, as they are now.

    Args:
        toolchains: folders with one folder for each toolchain.
        path: as the environment variable has it.
    """

    def __init__(self, toolchains: Iterable[Path], path: str) -> None:
        self._toolchains = tuple(toolchains)
        below = (
            place
            for folder in self._toolchains
            for layout in _LAYOUTS
            for place in sorted(folder.glob(layout))
        )
        named = (Path(entry) for entry in path.split(os.pathsep) if entry.startswith("/"))
        own = Path(sys.executable).parent  # what was installed with Martlet
        self._folders = {place: tuple(_names(place)) for place in dict.fromkeys([*below, *named, own])}

    def __str__(self) -> str:
        return " or ".join(["PATH", *map(str, self._toolchains)])

    @property
    def folders(self) -> Iterable[Path]:
        """All that programs are looked for in; a program that is installed changes one of them."""
        return (*self._toolchains, *self._folders)

    def find(self, programs: Sequence[str], beside: Path | None = None) -> list[Path]:
        """Returns the programs that one of these patterns names, with links resolved, the preferred first.

        Args:
            programs: as a `description.Program` names them.
            beside: a program whose own folder comes before all others.
        """
        found = (path for program in programs for path in self._candidates(program, beside))
        files = (path.resolve() for path in found if os.access(path, os.X_OK) and path.is_file())
        return list(dict.fromkeys(files))

    def _candidates(self, program: str, beside: Path | None) -> Iterator[Path]:
        if program == "{interpreter}":
            yield INTERPRETER
        elif program.startswith(("/", "~/")):
            yield from sorted(Path("/").glob(os.path.expanduser(program).lstrip("/")))
        elif "/" in program:
            for folder in self._toolchains:
                yield from sorted(folder.glob(program))
        else:
            own = {} if beside is None else {beside.parent: tuple(_names(beside.parent))}
            for folder, names in (own | self._folders).items():
                yield from (folder / name for name in _named(names, program))


def shown_for(program: Path, above: int) -> Path | None:
    """Returns the folder so many above a program's own that sandboxes must show; None where they do anyway."""
    folder = program.parents[min(above, len(program.parents) - 1)]
    seen = (*_SYSTEM, PREFIX, PREFIX.resolve())
    return None if any(folder.is_relative_to(place) for place in seen) else folder


def is_broad(folder: Path, private: Iterable[Path]) -> bool:
    """Whether a folder is none to show to functions: the machine's, somebody's home, or one that has private files."""
    homes = [Path.home(), Path("/root"), *Path("/home").glob("*")]
    return len(folder.parts) <= _BROAD_DEPTH or any(
        place.is_relative_to(folder) for place in (*homes, *private)
    )


def _named(names: Sequence[str], pattern: str) -> list[str]:
    """Returns the names, which are sorted, that match a pattern. /usr/bin has thousands, and few begin as it does."""
    literal = _WILDCARD.split(pattern, 1)[0]
    first = bisect_left(names, literal)
    last = bisect_right(names, literal, first, key=lambda name: name[: len(literal)])
    return matching(names[first:last], pattern)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
