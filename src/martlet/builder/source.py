"""What a deploy is made from: text, an uploaded archive, or a folder of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from martlet.model import GitSource
from martlet.package.archive import unpack_archive
from martlet.package.ignore import Ignore
from martlet.package.packing import Package, pack
from martlet.package.rules import Limits, refused
from martlet.package.staging import sole_folder


@dataclass(frozen=True, slots=True)
class Inline:
    """The text of one file. ``file`` is what it was called where it comes from; empty where it has no name."""

    code: str
    file: str = ""

    def stage(self, folder: Path, file_name: str | None, limits: Limits) -> Path:
        """Writes the file and returns the folder to pack. Raises `Invalid`."""
        if file_name is None:
            raise refused("its runtime takes no inline code; send a folder or an archive")
        if not self.code.strip():
            raise refused("it is empty")
        try:
            content = self.code.encode()
        except UnicodeEncodeError:
            raise refused("it has a character that UTF-8 cannot write (half a surrogate pair)") from None
        if len(content) > limits.bytes:
            raise refused("it is larger than system.max_package")
        (folder / file_name).write_bytes(content)
        return folder

    def discard(self) -> None:
        """There is nothing to discard."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An uploaded zip, tar.gz or tar. A folder that everything lies in is stepped into."""

    path: Path

    def stage(self, folder: Path, file_name: str | None, limits: Limits) -> Path:
        """Unpacks it and returns the folder to pack. Raises `Invalid`."""
        unpack_archive(self.path, folder, limits)
        return sole_folder(folder)

    @property
    def file(self) -> None:
        """It has no one file."""

    def discard(self) -> None:
        """Deletes the upload."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Local:
    """A file or folder of this machine, as the configuration file declares it."""

    path: Path

    def stage(self, folder: Path, file_name: str | None, limits: Limits) -> Path:
        """Returns the folder to pack. Raises `Invalid` where there is none."""
        try:
            if self.path.is_dir():
                return self.path
        except OSError as error:
            raise refused(f"{self.path} cannot be read: {error}") from None
        return Inline(self.read()).stage(folder, file_name, limits)

    def read(self) -> str:
        """Returns the text of the file. Raises `Invalid`."""
        try:
            return self.path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise refused(f"{self.path} cannot be read: {error}") from None

    @property
    def file(self) -> str | None:
        """The name of the file; None for a folder."""
        return None if self.path.is_dir() else self.path.name

    def discard(self) -> None:
        """The file stays: it is the operator's."""


@dataclass(frozen=True, slots=True)
class Git:
    """A folder in a git repository, which is `git.fetch`-ed before it can be staged."""

    source: GitSource

    @property
    def file(self) -> None:
        """It has no one file."""

    def discard(self) -> None:
        """What was fetched goes with the build."""


Source = Inline | Archive | Local
"""What can be packed."""


def make_package(source: Source, work: Path, file_name: str | None, limits: Limits) -> tuple[Package, Path]:
    """Packs a source.

    Args:
        source: what to pack.
        work: an empty folder to work in.
        file_name: what the file of inline code is called; None: there is none.
        limits: the most the package may hold.

    Returns:
        The package, and the folder it was made of.

    Raises:
        Invalid: the source is not what a package may hold.
    """
    folder = work / "code"
    folder.mkdir()
    staged = source.stage(folder, file_name, limits)
    return pack(staged, work / "code.tar.gz", limits, Ignore.of(staged)), staged
