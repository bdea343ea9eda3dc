"""What forks have of the libraries that their parent has loaded: what was written once, and the tables of what is read.

A library is five mappings, one of which the loader has written to before it became read-only: its addresses. The kernel
gives each fork a list of its own of who has copied what there, though nobody will again, and no table of the pages
of those that were never written to: a fork finds each sixteen of these anew, by a fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from itertools import pairwise

from martlet.sandbox import mappings
from martlet.sandbox.mappings import Mapping

SMALL = 64 * 1024
"""Bytes of constants up to which a library's lie beside its addresses, in one mapping: they are copied for that."""
BUSY = 256 * 1024
"""Bytes that are in use of a mapping from which on forks have its tables from the beginning: a copy takes time, too."""
NO_CHANGE = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals of a file that is for good what it is."""
_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)


def settle() -> None:
    """Puts what the loader has written of libraries into a file that is mapped in its place, with small constants.

    Raises:
        OSError: the kernel lends no memory that is a file.
    """
    file = os.memfd_create("libraries", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        for begin, size in [(each.begin, each.size) for each in _written_once([*mappings.read()])]:
            if os.pwrite(file, ctypes.string_at(begin, size), at) != size:
                raise OSError(errno.ENOSPC, "what libraries have does not fit into a file")
            if _libc.mmap(begin, size, mmap.PROT_READ, mmap.MAP_PRIVATE | _FIXED, file, at) == _FAILED:
                raise OSError(ctypes.get_errno(), "what libraries have could not be moved into a file")
            at += size
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, NO_CHANGE)
    finally:
        os.close(file)


def hand_down() -> None:
    """Has forks begin with the tables of pages that this process has, of libraries that it uses much of.

    The kernel copies those of mappings of which something was written to: of each a byte is, to what it is. Where it
    does not let that be, forks find the pages by themselves.
    """
    with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        for mapping in mappings.read():
            if mapping.is_private_of_a_file and mapping.resident >= BUSY and not mapping.copied:
                descriptor = memory.fileno()
                os.pwrite(descriptor, os.pread(descriptor, 1, mapping.begin), mapping.begin)


def _written_once(known: list[Mapping]) -> Iterator[Mapping]:
    """Yields those that the loader has written to, after the small one with constants that lies before it, if any."""
    for before, mapping in pairwise(known):
        if mapping.mode != "r--p" or not mapping.is_private_of_a_file or not mapping.copied:
            continue
        alike = (before.mode, before.file, before.end) == (mapping.mode, mapping.file, mapping.begin)
        if alike and before.size <= SMALL and not before.copied:
            yield before
        yield mapping
