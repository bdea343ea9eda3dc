"""A folder that is filled from an upload, entry by entry, so that nothing lands anywhere else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from martlet.package.rules import Limits, Tally, refused, safe_path, shown

CHUNK = 1024 * 1024


class Readable(Protocol):
    """Where the bytes of a file come from."""

    def read(self, size: int, /) -> bytes:
        """Returns at most ``size`` bytes, ``b""`` at the end."""


class Staging:
    """Writes files, folders and links into an empty ``folder``; counts them against ``limits``.

    Links are made last (`finish`), so no entry is ever written through one. Every method raises `Invalid` where an
    entry breaks a rule; the caller throws the folder away then.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.tally = Tally(limits)
        self._kinds: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def add_folder(self, name: str) -> None:
        """Adds a folder, and those above it; one that is there already is fine."""
        path = safe_path(name)
        if path:
            self._make_folders(path)

    def add_file(self, name: str, content: Readable, executable: bool = False) -> None:
        """Adds a file with what ``content`` yields."""
        target = self._place(name, "file")
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb") as file:
            while chunk := content.read(CHUNK):
                self.tally.add_bytes(len(chunk))
                file.write(chunk)
            os.fchmod(descriptor, 0o755 if executable else 0o644)

    def add_copy(self, name: str, of: str) -> None:
        """Adds a file that is a hard link in the archive: a copy of the earlier file ``of``."""
        source = safe_path(of)
        if self._kinds.get(source) != "file":
            raise refused(
                f"{shown(name)} is a hard link to {shown(of)}, which is no earlier file of the archive"
            )
        with (self.folder / source).open("rb") as content:
            self.add_file(name, content, executable=bool(os.fstat(content.fileno()).st_mode & 0o100))

    def add_link(self, name: str, target: str) -> None:
        """Adds a symbolic link; where it leads is checked when the folder is packed."""
        self._place(name, "link")
        self._links[safe_path(name)] = target

    def finish(self) -> None:
        """Makes the links."""
        for path, target in self._links.items():
            if not target or "\0" in target or len(target) > 4000:
                raise refused(
                    f"the link {shown(path)} has a target that cannot be followed ({shown(target)})"
                )
            os.symlink(target, self.folder / path)

    def _place(self, name: str, kind: str) -> Path:
        path = safe_path(name)
        if not path:
            raise refused(f"{shown(name)} is a {kind} and has no name")
        if path in self._kinds:
            raise refused(f"{shown(path)} is there twice")
        parent = path.rpartition("/")[0]
        if parent:
            self._make_folders(parent)
        self._kinds[path] = kind
        self.tally.add_entry()
        return self.folder / path

    def _make_folders(self, path: str) -> None:
        known = self._kinds.get(path)
        if known == "folder":
            return
        if known is not None:
            raise refused(f"{shown(path)} is there twice: as a {known} and as a folder")
        parent = path.rpartition("/")[0]
        if parent:
            self._make_folders(parent)
        self._kinds[path] = "folder"
        self.tally.add_entry()
        (self.folder / path).mkdir()
        (self.folder / path).chmod(0o755)


def sole_folder(folder: Path) -> Path:
    """Returns the one folder that everything in ``folder`` lies in, or ``folder`` itself.

    Archives made by code hosts wrap everything in ``name-version/``. A Python package (a folder with
    ``__init__.py``) is not stepped into: its name is what people import.
    """
    with os.scandir(folder) as found:
        entries = [entry for entry in found if entry.name not in ("__MACOSX", ".DS_Store")]
    if len(entries) == 1 and entries[0].is_dir(follow_symlinks=False):
        inner = Path(entries[0].path)
        if not (inner / "__init__.py").exists():
            return inner
    return folder


def remove_tree(folder: Path) -> None:
    """Deletes a folder and all in it; harmless when it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
