"""What may be in a package: names, kinds and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from martlet.errors import Invalid
from martlet.units import format_bytes

FIELD = "code"
LONGEST_NAME = 255
LONGEST_PATH = 1000
DEEPEST = 64
_REFUSED = "the code cannot be taken: "


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a package may unpack to: ``bytes`` of files, and ``entries`` (files, folders and links)."""

    bytes: int
    entries: int


class Tally:
    """Counts what has been taken from an upload and stops it at the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0
        self.entries = 0

    def add_entry(self) -> None:
        """Counts one file, folder or link. Raises `Invalid` past the limit."""
        self.entries += 1
        if self.entries > self.limits.entries:
            raise refused(
                f"it has over {self.limits.entries} files and folders: leave out what the function does not need "
                "(.martletignore), or raise system.max_package_files"
            )

    def add_bytes(self, count: int) -> None:
        """Counts bytes of a file. Raises `Invalid` past the limit."""
        self.bytes += count
        if self.bytes > self.limits.bytes:
            raise refused(
                f"it unpacks to over {format_bytes(self.limits.bytes)}: leave out what the function does not need "
                "(.martletignore), or raise system.max_package"
            )


def refused(reason: str) -> Invalid:
    """Returns the error that refuses an upload, for the caller to raise."""
    return Invalid(f"{_REFUSED}{reason}", field=FIELD)


def reason_of(error: Invalid) -> str:
    """Returns the reason that `refused` was given, for an archive that is no code."""
    return error.detail.removeprefix(_REFUSED)


def shown(name: str) -> str:
    """Writes an entry's name for a message: quoted, escaped, at most 120 characters."""
    return ascii(name if len(name) <= 120 else f"{name[:117]}...")


def safe_path(name: str) -> str:
    """Returns an entry's name as a clean relative path (``./a//b`` is ``a/b``; the root itself is ``""``).

    Raises:
        Invalid: the name leaves the tree or is one that a file system, a shell or a person would trip over.
    """
    if name.startswith("/"):
        raise refused(f"{shown(name)} is an absolute path; paths must be relative")
    if "\\" in name:
        raise refused(f"{shown(name)} has a backslash; separate folders with /")
    if not name.isascii() and not _is_utf8(name):
        raise refused(f"{shown(name)} is not UTF-8")
    if any(character < " " or character == "\x7f" for character in name):
        raise refused(f"{shown(name)} has a control character in its name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused(f"{shown(name)} leads out of the package with ..")
    if len(parts) > DEEPEST:
        raise refused(f"{shown(name)} lies more than {DEEPEST} folders deep")
    path = "/".join(parts)
    if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise refused(
            f"{shown(name)} is too long: a name has at most {LONGEST_NAME} bytes, a path {LONGEST_PATH}"
        )
    return path


def check_links(links: dict[str, str]) -> None:
    """Checks that links (path → target) lead nowhere outside the package, also through one another.

    A link to something that is not there is harmless and allowed.

    Raises:
        Invalid: one is absolute, leaves the tree, or goes round in circles.
    """
    for path, target in links.items():
        _follow(path, target, links)


def _follow(path: str, target: str, links: dict[str, str]) -> None:
    place = path.split("/")[:-1]
    steps = _steps(path, target)
    hops = 1
    while steps:
        step = steps.pop()
        if step == "..":
            if not place:
                raise refused(f"the link {shown(path)} leads out of the package (to {shown(target)})")
            place.pop()
            continue
        place.append(step)
        next_target = links.get("/".join(place))
        if next_target is None:
            continue
        hops += 1
        if hops > 40:
            raise refused(f"the link {shown(path)} goes round in circles (to {shown(target)})")
        place.pop()
        steps += _steps(path, next_target)


def _steps(path: str, target: str) -> list[str]:
    if target.startswith("/"):
        raise refused(f"the link {shown(path)} leads to an absolute path ({shown(target)})")
    if not target or "\0" in target or not _is_utf8(target) or len(target.encode()) > LONGEST_PATH:
        raise refused(f"the link {shown(path)} has a target that cannot be followed ({shown(target)})")
    return [step for step in reversed(target.split("/")) if step not in ("", ".")]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
