"""Code that runs without Python, because the memory it deals with is Python's own.

It makes system calls between which memory must not change, and it compares pages of a process with what they were, to
drop those that are the same. For x86-64.

    range     where it is, where what it was is, where there is a word for each page, and how many pages it has
    word      as `pagemap` has it: what a page is (proc_pid_pagemap(5))
    call      a system call: number, six arguments, and what it must return for the next one to be made
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from martlet.sandbox.immortal import Mark

_GIVE_BACK = (
    "53 55 4154 4155 4156 4157 51 52"  # keeps what its caller has in rbx, rbp and r12 to r15, and the calls
    "4889fb 4889f5"  # rbx = the first range, rbp = how many
    "48ffcd 0f88ff000000"  # range: when there are no more, makes the calls
    "4c8b23 4c8b6b08 4c8b7310 4c8b7b18"  # r12 = a page, r13 = what it was, r14 = its word, r15 = how many
    "49ffcf 0f8892000000"  # page: when there are no more, checks them
    "498b06 49832600 48c1e83d 83f804 756b"  # next unless it is there, and neither swapped nor of a file
    "4c89e6 4c89ef b900020000"  # rsi = the page, rdi = what it was, ecx = 512
    "f348a7 7444"  # words: the same if all that are left are equal
    "488b46f8 488b57f8 4989c0 4989d1 49c1e820 49c1e920"  # rax and rdx = two that are not; r8, r9 = their upper halves
    "4539c8 750b 4181f8{references} 741c eb35"  # more if those are equal and marked, else next
    "39d0 7531 41c1e810 41c1e910 4539c8 7524 4181f8{calls} 751b"  # next unless lower halves and marks of calls are
    "85c9 75b7"  # more: words
    "49ff06 4c89e7 be00100000 ba04000000 b81c000000 0f05"  # same: notes it; madvise(page, 4096, MADV_DONTNEED)
    "4981c400100000 4981c500100000 4983c608 e965ffffff"  # next: page
    "4c8b23 4c8b6b08 4c8b7310 4c8b7b18"  # check: the range again
    "49ffcf 7838 49833e00 741e"  # what was dropped
    "4c89ee 4c89e7 b900020000 f348a7 740e"  # is what it was
    "4c89ee 4c89e7 b900020000 f348a5"  # or becomes that: it was not of the file, as somebody has mapped something else
    "4981c400100000 4981c500100000 4983c608 ebc3"  # the next page
    "4883c320 e9f8feffff"  # the next range
    "488dbc2400f0fdff 4881e700f0ffff be00000200 ba04000000 b81c000000 0f05"  # drops what is below of the stack: 128 KiB
    "5f 5e 415f 415e 415d 415c 5d 5b"  # rdi = the first call, rsi = how many; all else is its caller's again
)
_MAKE_CALLS = (
    "53 55 4889fb 4889f5"  # rbx = the first call, rbp = how many
    "4885ed 742c"  # call: ends when there are no more
    "488b03 488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30 0f05"
    "483b4338 7509"  # or when it has not returned what it must
    "4883c340 48ffcd ebcf"  # the next one
    "4889e8 5d 5b c3"  # returns how many are left
)
_MARKS = {
    "references": struct.pack("<I", Mark.REFERENCES).hex(),
    "calls": struct.pack("<I", Mark.CALLS).hex(),
}
_RANGE, _CALL = struct.Struct("<4Q"), struct.Struct("<8q")
_ARGUMENTS = 6
_TABLE = (ctypes.c_char_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value
PAGE = 4096


class Range(NamedTuple):
    """Some pages: where they are, where what they were is, where their words are, and how many they are."""

    begin: int
    before: int
    words: int
    pages: int


class Table(NamedTuple):
    """Ranges or calls as the code reads them."""

    text: bytes
    rows: int


_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.pthread_self.restype = ctypes.c_void_p


def possible() -> bool:
    """Whether this machine can run it."""
    return os.uname().machine == "x86_64" and mmap.PAGESIZE == PAGE


def ranges(of: Iterable[Range]) -> Table:
    """Returns them as a table."""
    packed = [_RANGE.pack(*each) for each in of]
    return Table(b"".join(packed), len(packed))


def call(number: int, *arguments: int, wanted: int = 0) -> bytes:
    """Returns a system call for `calls`, and what it must return for the next one to be made."""
    return _CALL.pack(number, *arguments, *[0] * (_ARGUMENTS - len(arguments)), wanted)


def calls(of: Sequence[bytes]) -> Table:
    """Returns them as a table."""
    return Table(b"".join(of), len(of))


def map_memory(size: int, protection: int, file: int | None = None) -> int:
    """Maps memory that is new, or a file. Returns where. Raises OSError."""
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if file is None else mmap.MAP_SHARED
    at: int | None = _libc.mmap(None, size, protection, kind, -1 if file is None else file, 0)
    if at == _FAILED:
        raise OSError(ctypes.get_errno(), f"mmap: {size} bytes")
    assert at is not None
    return at


def unmap(begin: int, size: int) -> None:
    """Lets go of what `map_memory` mapped. Raises OSError."""
    if _libc.munmap(begin, size):
        raise OSError(ctypes.get_errno(), f"munmap: {size} bytes")


def thread_storage() -> int:
    """Returns an address in the memory that the calling thread has from libc and the kernel."""
    at: int = _libc.pthread_self()
    return at


class MachineCode:
    """The code, in memory of its own. Raises OSError: the kernel gives none that can be executed."""

    def __init__(self) -> None:
        give_back, make_calls = (bytes.fromhex(text.format(**_MARKS)) for text in (_GIVE_BACK, _MAKE_CALLS))
        at = map_memory(PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
        ctypes.memmove(at, give_back + make_calls, len(give_back + make_calls))
        if _libc.mprotect(at, PAGE, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._give_back = ctypes.PYFUNCTYPE(ctypes.c_long, *_TABLE, *_TABLE)(at)
        self._make_calls = ctypes.PYFUNCTYPE(ctypes.c_long, *_TABLE)(at + len(give_back))

    def make_calls(self, calls: Table) -> int:
        """Makes calls up to the first that does not return what it must. Returns how many are left, with that one."""
        left: int = self._make_calls(*calls)
        return left

    def give_back(self, ranges: Table, calls: Table) -> None:
        """Drops the pages of ranges that are what they were, then makes calls, as `make_calls` does.

        Their words say what they are, and are overwritten. Nothing else may run in this process: no thread, no handler.
        """
        self._give_back(*ranges, *calls)
