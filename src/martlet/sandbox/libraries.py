"""What forks have of the libraries that their parent has loaded: what was written once, and the tables of what is read.

A library is five mappings, one of which the loader has written to before it became read-only: its addresses. The kernel
gives each fork a list of its own of who has copied what there, though nobody will again, and no table of the pages
of those that were never written to: a fork finds each sixteen of these anew, by a fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

SMALL = 64 * 1024
"""Bytes of constants up to which a library's lie beside its addresses, in one mapping: they are copied for that."""
BUSY = 256 * 1024
"""Bytes that are in use of a mapping from which on forks have its tables from the beginning: a copy takes time, too."""
NO_CHANGE = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals of a file that is for good what it is."""
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+ \d+)")
_NO_FILE = "00:00 0"
_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)


class _Mapping(NamedTuple):
    """A mapping of this process: where it is, what may be done there, of which file, and what of it is in use."""

    begin: int
    end: int
    mode: str
    file: str
    resident: int
    copied: int

    @property
    def size(self) -> int:
        return self.end - self.begin


def settle(proc: str) -> None:
    """Puts what the loader has written of libraries into a file that is mapped in its place, with small constants.

    Args:
        proc: where ``/proc`` is to be seen.

    Raises:
        OSError: the kernel lends no memory that is a file.
    """
    file = os.memfd_create("libraries", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        for mapping in [*_written_once([*_mappings(proc)])]:
            os.pwrite(file, ctypes.string_at(mapping.begin, mapping.size), at)
            kind = mmap.MAP_PRIVATE | _FIXED
            if _libc.mmap(mapping.begin, mapping.size, mmap.PROT_READ, kind, file, at) == _FAILED:
                raise OSError(ctypes.get_errno(), "what libraries have could not be moved into a file")
            at += mapping.size
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, NO_CHANGE)
    finally:
        os.close(file)


def hand_down() -> None:
    """Has forks begin with the tables of pages that this process has, of libraries that it uses much of.

    The kernel copies those of mappings of which something was written to: of each a byte is, to what it is. Where it
    does not let that be, forks find the pages by themselves.
    """
    with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        for mapping in _mappings("/proc"):
            if _is_of_a_file(mapping) and mapping.resident >= BUSY and not mapping.copied:
                descriptor = memory.fileno()
                os.pwrite(descriptor, os.pread(descriptor, 1, mapping.begin), mapping.begin)


def _written_once(mappings: list[_Mapping]) -> Iterator[_Mapping]:
    """Yields those that the loader has written to, after the small one with constants that lies before it, if any."""
    for before, mapping in pairwise(mappings):
        if mapping.mode != "r--p" or not _is_of_a_file(mapping) or not mapping.copied:
            continue
        alike = (before.mode, before.file, before.end) == (mapping.mode, mapping.file, mapping.begin)
        if alike and before.size <= SMALL and not before.copied:
            yield before
        yield mapping


def _is_of_a_file(mapping: _Mapping) -> bool:
    return mapping.mode[3] == "p" and mapping.file != _NO_FILE


def _mappings(proc: str) -> Iterator[_Mapping]:
    with open(f"{proc}/self/smaps") as lines:
        head, known = None, {"Rss": 0, "Anonymous": 0}
        for line in lines:
            if found := _HEAD.match(line):
                head = found
            elif head is not None:
                name, _, rest = line.partition(":")
                if name in known:
                    known[name] = int(rest.split()[0]) * 1024
                elif name == "VmFlags":
                    begin, end, mode, file = head.groups()
                    yield _Mapping(int(begin, 16), int(end, 16), mode, file, *known.values())
