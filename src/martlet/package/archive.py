"""Unpacking what people upload: zip, tar.gz and tar, told apart by what they hold and not by their name."""

from __future__ import annotations

import errno
import gzip
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from martlet.package.rules import Limits, refused, shown
from martlet.package.staging import Readable, Staging
from martlet.package.tar import BLOCK, Kind, is_tar, members

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_DIRECTORY_END = b"PK\x05\x06"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ZIP64_LOCATOR = b"PK\x06\x07"
_UNIX = 3
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


def unpack_archive(archive: Path, folder: Path, limits: Limits) -> None:
    """Unpacks an uploaded archive into the empty ``folder``.

    Raises:
        Invalid: it is no archive that Martlet reads, is damaged, over the limits, or has an entry that no package
            may have. What lies in ``folder`` then is to be thrown away.
    """
    with archive.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(0)
        staging = Staging(folder, limits)
        if head.startswith(_ZIP):
            _unpack_zip(file, staging)
        elif head.startswith(_GZIP):
            _unpack_gzip(file, staging)
        elif is_tar(head):
            _unpack_tar(file, staging)
        else:
            raise refused("it is no archive; send a zip, a tar.gz or a tar")
    staging.finish()


def _unpack_gzip(file: BinaryIO, staging: Staging) -> None:
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            _unpack_tar(stream, staging)
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise refused(f"the archive is damaged or cut off ({fault})") from None


def _unpack_tar(stream: Readable, staging: Staging) -> None:
    for member in members(_Bounded(stream, staging.tally.limits)):
        if member.kind is Kind.FOLDER:
            staging.add_folder(member.name)
        elif member.kind is Kind.FILE:
            staging.add_file(member.name, member.content, member.executable)
        elif member.kind is Kind.COPY:
            staging.add_copy(member.name, member.target)
        else:
            staging.add_link(member.name, member.target)


class _Bounded:
    """A stream that ends in an error when it yields more than a package within the limits can need."""

    def __init__(self, stream: Readable, limits: Limits) -> None:
        self._stream = stream
        self._left = limits.bytes + (limits.entries + 64) * 4 * BLOCK

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise refused(
                "the archive unpacks to more than its files can need, or to over system.max_package"
            )
        return data


def _unpack_zip(file: BinaryIO, staging: Staging) -> None:
    try:
        _check_entry_count(file, staging.tally.limits)
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                _unpack_zip_entry(archive, info, staging)
    except UnicodeDecodeError:
        raise refused("a name in the zip is not UTF-8") from None
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise  # a disk that is full is not the archive's fault
        raise refused("the zip is damaged: its directory points to what lies outside of it") from None
    except _ZIP_FAULTS as fault:
        raise refused(f"the zip is damaged, or not one that Martlet reads ({fault})") from None


def _unpack_zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, staging: Staging) -> None:
    name = info.orig_filename
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if info.flag_bits & 1:
        raise refused(f"{shown(name)} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refused(f"{shown(name)} is compressed in an unusual way; make the zip with deflate")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise refused(f"{shown(name)} is a special file; only files, folders and links may be")
    if name.endswith("/") or stat.S_ISDIR(mode):
        staging.add_folder(name)
        return
    with archive.open(info) as content:
        if stat.S_ISLNK(mode):
            staging.add_link(name, content.read(4096).decode("utf-8", "surrogateescape"))
        else:
            staging.add_file(name, content, executable=bool(mode & 0o100))


def _check_entry_count(file: BinaryIO, limits: Limits) -> None:
    """Walks the central directory without keeping it, so that a zip with a million entries costs nothing."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 65_557)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(_DIRECTORY_END)
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("it has no directory; is it cut off?")
    length = struct.unpack_from("<L", tail, end + 12)[0]
    if length == 0xFFFF_FFFF or tail[:end][-20:].startswith(_ZIP64_LOCATOR):
        # It has a second directory, which would be the one that counts.
        raise zipfile.BadZipFile("it is in the zip64 format")
    position = start + end - length
    if position < 0:
        raise zipfile.BadZipFile("its directory lies outside of it")
    file.seek(position)
    directory = file.read(length)
    offset = entries = 0
    while directory[offset : offset + 4] == _DIRECTORY_ENTRY and offset + 46 <= length:
        entries += 1
        if entries > limits.entries:
            raise refused(
                f"the zip has over {limits.entries} entries; leave out what the function does not need"
            )
        offset += 46 + sum(struct.unpack_from("<HHH", directory, offset + 28))
    file.seek(0)
