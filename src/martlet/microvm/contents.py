"""Whether a folder that never changes still is what it was: a list of its files by digest, which lies in it.

To read hundreds of megabytes for that takes a second, so the list says also how its files were last found (inode,
size, times), as git's index does: a file that is found so again is not read. Whatever changes, cuts or replaces a file
changes one of these; decay below the file system does not, and is not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

_LIST, _WORK = "contents.json", ".contents-"
_BLOCK = 1 << 20
_NOTHING = bytes(_BLOCK)

Seen = list[int]


def write_list(folder: Path, version: str) -> None:
    """Writes the list of a folder of files.

    Args:
        folder: all of it is there.
        version: what it is; whoever wants another one does not take it for that.
    """
    files = {path.name: _file(path) for path in sorted(folder.iterdir())}
    _write(folder, {"version": version, "files": files})


def what_is_wrong(folder: Path, version: str) -> str | None:
    """Returns in what a folder differs from what was made, for people; None where in nothing."""
    try:
        document = json.loads((folder / _LIST).read_bytes())
        if document["version"] != version:
            return f"it is of the version {document['version']}"
        files = {
            path.name: path
            for path in folder.iterdir()
            if path.name != _LIST and not path.name.startswith(_WORK)
        }
        if files.keys() != document["files"].keys():
            return f"it has other files than {', '.join(document['files'])}"
        changed = False
        for name, path in files.items():
            known = document["files"][name]
            if _seen(path) != known["seen"]:
                if _digest(path) != known["digest"]:
                    return f"{name} is not what it was"
                known["seen"], changed = _seen(path), True
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{_LIST} cannot be read"
    if changed:
        with suppress(OSError):  # then it is read once more the next time
            _write(folder, document)
    return None


def _write(folder: Path, document: dict[str, Any]) -> None:
    work = folder / f"{_WORK}{secrets.token_hex(8)}"
    work.write_text(json.dumps(document))
    work.rename(folder / _LIST)


def _file(path: Path) -> dict[str, Any]:
    return {"digest": _digest(path), "seen": _seen(path)}


def _seen(path: Path) -> Seen:
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _digest(path: Path) -> str:
    """Returns the digest of a file, the same one whether nothing is a hole in it or is written there."""
    with path.open("rb", buffering=0) as file:
        descriptor, offset = file.fileno(), 0
        whole = hashlib.sha256(b"%d" % os.fstat(descriptor).st_size)
        while block := _data(descriptor, offset):
            offset, data = block
            if data != _NOTHING[: len(data)]:
                whole.update(b"\0%d\0" % offset)
                whole.update(data)
            offset += len(data)
    return whole.hexdigest()


def _data(descriptor: int, offset: int) -> tuple[int, bytes] | None:
    """Returns the first block from ``offset`` on that is no hole, and where it is; None where there is none."""
    try:
        offset = os.lseek(descriptor, offset, os.SEEK_DATA) // _BLOCK * _BLOCK
    except OSError:  # there is a hole up to the end
        return None
    return offset, os.pread(descriptor, _BLOCK, offset)
