"""The runtimes that this machine has: what every ``runtime.toml`` describes, in the versions that are found.

A runtime answers to its language and to the beginnings of its version: Python 3.11.7 to ``python``, ``python3`` and
``python3.11``, the newest that fits to the short names. A name with another version is refused rather than served by
the wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from martlet.errors import Invalid
from martlet.runtimes.description import FILE, Description, read_description
from martlet.runtimes.discovery import Absent, Discovery, remedy
from martlet.runtimes.places import Places
from martlet.runtimes.runtime import SHIPPED, Runtime
from martlet.runtimes.versions import Versions
from martlet.settings import SystemSettings

FIELD = "config.runtime"
"""The field that errors name: where a user says which runtime a function has."""


class RuntimeMissing(Invalid):
    """This machine does not have a runtime; ``name`` is what was asked for, or the language that files announce."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail, field=FIELD)
        self.name = name


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is, and what it was read from, as that was."""

    runtimes: tuple[Runtime, ...] = ()
    absent: tuple[Absent, ...] = ()
    descriptions: tuple[Description, ...] = ()
    by_name: dict[str, Runtime] = field(default_factory=dict)
    stamp: object = None


class Catalogue:
    """Every runtime of this machine. `load` and `of` make one.

    Args:
        folders: each has one folder for each runtime.
        toolchains: where programs are looked for before ``PATH``.
        versions: asks programs for their version.
        private: folders that no function may see.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        toolchains: Sequence[Path] = (),
        versions: Versions | None = None,
        private: Sequence[Path] = (),
    ) -> None:
        self._folders = folders
        self._toolchains = toolchains
        self._versions = versions or Versions()
        self._private = private
        self._found = _Found()
        self.refresh()

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> Self:
        """Returns the runtimes of one folder, with the programs of ``PATH``."""
        return cls([folder])

    @classmethod
    def of(cls, settings: SystemSettings) -> Self:
        """Returns the runtimes of a platform."""
        data = settings.function_storage_path.absolute()
        folders = (
            [SHIPPED] if settings.runtimes_path is None else [SHIPPED, settings.runtimes_path.absolute()]
        )
        return cls(folders, settings.toolchain_folders, Versions(data / "toolchains.json"), [data / "blobs"])

    def refresh(self) -> None:
        """Looks again where a description or a folder of programs has changed since."""
        places = Places(self._toolchains, os.environ.get("PATH", os.defpath))
        files = [path for folder in self._folders for path in sorted(folder.glob(f"*/{FILE}"))]
        stamp = [_stamp(path) for path in (*files, *places.folders)]
        if stamp == self._found.stamp:
            return
        described, broken = _read(files)
        found = list(Discovery(places, self._versions, self._private).find(described))
        runtimes = tuple(each for each in found if isinstance(each, Runtime))
        self._found = _Found(
            runtimes=runtimes,
            absent=(*(each for each in found if isinstance(each, Absent)), *broken),
            descriptions=tuple(description for _, description in described),
            by_name={name: runtime for runtime in runtimes for name in runtime.names},
            stamp=stamp,
        )

    def available(self) -> tuple[Runtime, ...]:
        """Returns the runtimes, by language, the newest version first."""
        return self._found.runtimes

    def absent(self) -> tuple[Absent, ...]:
        """Returns the languages that are described and that this machine cannot run."""
        return self._found.absent

    def resolve(self, name: str) -> Runtime:
        """Returns the runtime that answers to a name; one that is unknown is looked for again.

        Raises:
            RuntimeMissing: none does; the message says what to install, or lists the names that are known.
        """
        if name not in self._found.by_name:
            self.refresh()
        found = self._found
        if name in found.by_name:
            return found.by_name[name]
        language = name.rstrip("0123456789.")
        for absent in found.absent:
            if absent.name == language:
                way = "" if absent.remedy is None else f"; to install it: {absent.remedy}"
                raise RuntimeMissing(name, f"this machine has no runtime {name!r}: {absent.reason}{way}")
        of_language = [runtime for runtime in found.runtimes if runtime.description.name == language]
        known = ", ".join(name for runtime in of_language or found.runtimes for name in runtime.names)
        raise RuntimeMissing(name, f"this machine has no runtime {name!r}; it has {known}")

    def way_to_install(self, name: str) -> str | None:
        """Returns how all that a runtime takes is installed, as one sentence; None where no way is known."""
        language = name.rstrip("0123456789.")
        for description in self._found.descriptions:
            if description.name == language and description.toolchain is not None:
                return remedy([description.toolchain, *description.toolchain.also])
        return None

    def announced_by(self, file: str) -> Runtime:
        """Returns the runtime that a file of this name announces. Raises `Invalid` like `detect`."""
        self.refresh()
        ranked = self._ranked()
        for description in ranked:
            if any(fnmatchcase(file, pattern) for pattern in description.announced_by):
                return self.resolve(description.name)
        suffixes = ", ".join(pattern for pattern in _patterns(ranked) if pattern.startswith("*"))
        raise Invalid(
            f"the name {file!r} does not say which runtime it is for ({suffixes}): set the runtime",
            field=FIELD,
        )

    def detect(self, folder: Path) -> Runtime:
        """Returns the runtime that the files in a folder announce.

        Raises:
            Invalid: they announce none, and the message says which files would; or this machine does not have it.
        """
        self.refresh()
        ranked = self._ranked()
        for description in ranked:
            if description.announced_in(folder):
                return self.resolve(description.name)
        raise Invalid(
            f"no file at the top of the package says which runtime it is for ({', '.join(_patterns(ranked))}): "
            "set the runtime, or check that the files are not in a folder of their own",
            field=FIELD,
        )

    def _ranked(self) -> list[Description]:
        return sorted(self._found.descriptions, key=lambda description: description.rank)


def _patterns(descriptions: Iterable[Description]) -> Iterable[str]:
    """Returns the names of files that announce any of these."""
    return dict.fromkeys(pattern for each in descriptions for pattern in each.announced_by)


def _read(files: Iterable[Path]) -> tuple[list[tuple[Path, Description]], list[Absent]]:
    """Returns the descriptions that can be used, with their folders, and why others cannot."""
    described: dict[str, tuple[Path, Description]] = {}
    broken = []
    for path in files:
        folder = path.parent
        try:
            description = read_description(path)
            if description.name in described:
                other = described[description.name][0] / FILE
                raise Invalid(f"{path} and {other} have one name, {description.name!r}: change one of them")
            described[description.name] = (folder, description)
        except Invalid as error:
            broken.append(Absent(name=folder.name, title=folder.name, reason=error.detail))
    return sorted(described.values(), key=lambda each: each[1].name), broken


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size
