"""A package back into a folder, where functions run."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

from martlet.errors import Invalid
from martlet.package.rules import Limits
from martlet.package.staging import Staging
from martlet.package.tar import Kind, members


class Corrupt(Exception):
    """A package is not what its name says."""


def unpack(package: BinaryIO, digest: str, folder: Path) -> int:
    """Unpacks a package into the empty ``folder`` and returns the bytes its files hold.

    Raises:
        Corrupt: it does not have this digest, or is no package; what lies in ``folder`` is to be thrown away.
    """
    staging = Staging(folder, Limits(bytes=1 << 50, entries=1 << 40))
    try:
        with gzip.GzipFile(fileobj=package) as compressed:
            stream = _Hashed(compressed)
            for member in members(stream):
                if member.kind is Kind.FOLDER:
                    staging.add_folder(member.name)
                elif member.kind is Kind.FILE:
                    staging.add_file(member.name, member.content, member.executable)
                else:
                    staging.add_link(member.name, member.target)
    except (Invalid, EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise Corrupt(f"package {digest} cannot be unpacked: {fault}") from None
    if stream.hash.hexdigest() != digest:
        raise Corrupt(f"package {digest} holds something else: its files were changed where they are stored")
    staging.finish()
    return staging.tally.bytes


class _Hashed:
    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data
