"""Reading tar streams strictly: ustar, pax and GNU long names; anything cut off, odd or special is refused.

The format: IEEE Std 1003.1 (pax), "ustar Interchange Format" and "pax Interchange Format".
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from martlet.errors import Invalid
from martlet.package.rules import refused, shown
from martlet.package.staging import CHUNK, Readable

BLOCK = 512
_LONGEST_HEADER = 64 * 1024
_MOST_HEADERS = 16
_END = bytes(BLOCK)
_PLAIN = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?")


class Kind(StrEnum):
    """What an entry is; other kinds are refused. ``SPECIAL`` (a device or a FIFO) is where it is asked for."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    COPY = "hard link"
    SPECIAL = "special file"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"5": Kind.FOLDER,
    b"2": Kind.LINK,
    b"1": Kind.COPY,
}
_SPECIAL = {b"3": "a device", b"4": "a device", b"6": "a FIFO"}
_REFUSED = {**_SPECIAL, b"S": "a sparse file"}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry; ``content`` must be read before the next is asked for, what is left of it is skipped.

    ``modified`` is in seconds since the epoch.
    """

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    modified: float
    target: str
    content: Content

    @property
    def executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.mode & 0o100)


class Content:
    """The ``size`` bytes of one entry, read from the stream."""

    def __init__(self, stream: Readable, size: int) -> None:
        self.size = size
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK

    def read(self, size: int, /) -> bytes:
        """Returns up to ``size`` bytes. Raises `Invalid` where the archive ends too early."""
        data = self._stream.read(min(size, self._left))
        if not data and size and self._left:
            raise _cut_off()
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Moves behind the entry."""
        while self._left:
            self.read(CHUNK)
        _exactly(self._stream, self._padding)


def members(stream: Readable, *, special: bool = False) -> Iterator[Member]:
    """Yields the entries of a tar stream, and reads it to its end.

    Args:
        stream: the archive.
        special: yield devices and FIFOs too, rather than refuse them.

    Raises:
        Invalid: it is not a tar archive, is cut off, or holds what no package may.
    """
    while (block := _exactly(stream, BLOCK)) != _END:
        member = _member(stream, block, special)
        yield member
        member.content.skip()
    while stream.read(CHUNK):
        pass


def is_tar(head: bytes) -> bool:
    """Whether the first block of a file is a tar header (its checksum holds)."""
    return len(head) >= BLOCK and _checksum_holds(head[:BLOCK])


def header(name: str, kind: Kind, *, size: int = 0, executable: bool = False, target: str = "") -> bytes:
    """Returns the header blocks of an entry: no time, no owner, one of two modes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if executable or kind is Kind.FOLDER else 0o644
    info.type = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}[kind]
    info.linkname = target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _member(stream: Readable, block: bytes, special: bool) -> Member:
    given: dict[str, str] = {}
    for _ in range(_MOST_HEADERS):
        if not _checksum_holds(block):
            raise refused("it is not a tar archive, or a damaged one")
        kind, size = block[156:157], _number(block[124:136])
        if kind not in (b"x", b"g", b"L", b"K"):
            return _entry(stream, block, kind, size, given, special)
        if size > _LONGEST_HEADER:
            raise refused("the archive has a header that is too long")
        content = Content(stream, size)
        data = _exactly(content, size)
        content.skip()
        if kind == b"x":
            given |= _pax(data)
        elif kind != b"g":
            given["path" if kind == b"L" else "linkpath"] = _text(data)
        block = _exactly(stream, BLOCK)
    raise refused("the archive has too many headers in a row")


def _entry(
    stream: Readable, block: bytes, kind: bytes, size: int, given: dict[str, str], special: bool
) -> Member:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    name = given.get("path") or f"{prefix}/{_text(block[:100])}".removeprefix("" if prefix else "/")
    special = special and kind in _SPECIAL
    if (kind in _REFUSED and not special) or any(key.startswith("GNU.sparse") for key in given):
        raise refused(
            f"{shown(name)} is {_REFUSED.get(kind, 'a sparse file')}; only files, folders and links may be"
        )
    if kind not in _KINDS and not special:
        raise refused(f"{shown(name)} is of an unknown kind ({kind.decode('latin-1')!a})")
    found = Kind.SPECIAL if special else _KINDS[kind]
    if found is Kind.FILE and name.endswith("/"):
        found = Kind.FOLDER
    if "size" in given:
        size = _decimal(given["size"])
    return Member(
        name=name,
        kind=found,
        mode=_number(block[100:108]),
        uid=int(_told(given, "uid", block[108:116])),
        gid=int(_told(given, "gid", block[116:124])),
        modified=_told(given, "mtime", block[136:148]),
        target=given.get("linkpath") or _text(block[157:257]),
        content=Content(stream, size if found is Kind.FILE else 0),
    )


def _pax(data: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        end = _decimal(length.decode("latin-1"))
        key, equals, value = data[len(length) + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise refused("the archive has a damaged pax header")
        records[_text(key)] = _text(value, stop_at_nul=False)
        data = data[end:]
    return records


def _checksum_holds(block: bytes) -> bool:
    field = block[148:156].strip(b"\0 ")
    if not field or any(digit not in b"01234567" for digit in field):
        return False
    return int(field, 8) == sum(block) - sum(block[148:156]) + 8 * 32


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, as GNU tar writes what octal digits cannot hold
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _damaged()
    digits = field.strip(b"\0 ")
    if any(digit not in b"01234567" for digit in digits):
        _damaged()
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 20):
        _damaged()
    return int(text)


def _told(given: dict[str, str], key: str, field: bytes) -> float:
    """Returns what an entry says of its owner or time; 0 where that is no number, which spoils no archive."""
    if key in given:
        return float(given[key]) if _PLAIN.fullmatch(given[key]) else 0
    try:
        return _number(field)
    except Invalid:
        return 0


def _text(field: bytes, stop_at_nul: bool = True) -> str:
    return (field.partition(b"\0")[0] if stop_at_nul else field).decode("utf-8", "surrogateescape")


def _damaged() -> int:
    raise refused("the archive has a damaged header")


def _cut_off() -> Exception:
    return refused("the archive is cut off; upload it again")


def _exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise _cut_off()
        data += more
    return data
