"""Folders as streams: what a guest gets code as. An archive that takes an emulated processor less than a tar does.

    length of the name, 2 bytes; mode, 4; bytes of the content, 8; time of the last change in ns, 8; all big-endian
    name, relative to the folder; what a folder holds comes after it
    content: of a file its own, of a link where it leads, of a folder nothing

Standard library only.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping

PIECE = 32 * 1024
_ENTRY = struct.Struct(">HIQQ")

Read = Callable[[int], bytes]
"""Returns so many bytes of the stream; fewer, or none, where it ends before."""


def pack(folder: str) -> Iterator[bytes]:
    """Yields the stream of what is in a folder, in parts of any size. Raises OSError."""
    pending = [("", folder)]
    while pending:
        below, path = pending.pop()
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{name}/", entry.path))
                yield from _packed(name, entry.path, entry.stat(follow_symlinks=False))


def pack_files(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yields the stream of a folder with such files, by their names, and nothing else."""
    for name, content in files.items():
        yield _head(name, stat.S_IFREG | 0o644, len(content), 0) + content


def _packed(name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
    def head(size: int) -> bytes:
        return _head(name, status.st_mode, size, status.st_mtime_ns)

    if stat.S_ISDIR(status.st_mode):
        yield head(0)
    elif stat.S_ISLNK(status.st_mode):
        target = os.fsencode(os.readlink(path))
        yield head(len(target)) + target
    elif stat.S_ISREG(status.st_mode):
        yield head(status.st_size)
        with open(path, "rb", buffering=0) as file:
            left = status.st_size
            while left and (content := file.read(min(left, PIECE))):
                left -= len(content)
                yield content
        if left:
            raise OSError(f"{path} has become shorter")


def _head(name: str, mode: int, size: int, changed: int) -> bytes:
    encoded = os.fsencode(name)
    return _ENTRY.pack(len(encoded), mode, size, changed) + encoded


def unpack(read: Read, folder: str) -> None:
    """Makes what a stream holds in a folder, which is to be empty. Whoever packed it is trusted.

    Raises:
        OSError: there is no room, or the stream ends too early.
    """
    while head := read(_ENTRY.size):
        length, mode, size, changed = _ENTRY.unpack(head)
        path = f"{folder}/{os.fsdecode(read(length))}"
        if stat.S_ISDIR(mode):
            os.mkdir(path)
            os.chmod(path, stat.S_IMODE(mode))
        elif stat.S_ISLNK(mode):
            os.symlink(read(size), path)
        else:
            _unpack_file(read, path, stat.S_IMODE(mode), size, changed)


def _unpack_file(read: Read, path: str, mode: int, size: int, changed: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        while size:
            content = read(min(size, PIECE))
            if not content:
                raise OSError("the code has come in part only")
            size -= len(content)
            while content:
                content = content[os.write(file, content) :]
        os.fchmod(file, mode)
        os.utime(file, ns=(changed, changed))
    finally:
        os.close(file)
