"""What this process has loaded: what somebody needs who starts the same program where none of it is installed."""

from __future__ import annotations

import ctypes
import json
import os
import struct

_LOADER_ADDRESS = 7
"""AT_BASE of the auxiliary vector: where the kernel has put the loader."""
_ENTRY = "@LL"


class _Object(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


_Note = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Object), ctypes.c_size_t, ctypes.c_void_p)


def libraries() -> tuple[str | None, list[str]]:
    """Returns the paths of the loader (None: there is none) and of the shared libraries, as they were asked for."""
    found: dict[int, str] = {}

    def note(loaded: ctypes._Pointer[_Object], *_: object) -> int:
        found[loaded.contents.address or 0] = os.fsdecode(loaded.contents.name or b"")
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(_Note(note), None)
    with open("/proc/self/auxv", "rb") as vector:
        address = dict(struct.iter_unpack(_ENTRY, vector.read()))[_LOADER_ADDRESS]
    loader = found.pop(address, "") or None
    return loader, [path for path in found.values() if path.startswith("/")]


def main() -> None:
    """Prints what `libraries` returns, and where the standard library is, as JSON."""
    loader, paths = libraries()
    print(json.dumps({"loader": loader, "libraries": paths, "standard": os.path.dirname(os.__file__)}))
