"""Memory that cells share for good: a file that a cell which idles can go back to.

A fork copies a page when it writes to it, and Python writes to whatever it looks at, because that counts references.
Most pages that a cell has copied are again what they were once it idles, or differ in such counts alone, and the kernel
cannot know. So a zygote puts its memory into a file, which is mapped where the memory was, and a cell that rests
compares: the pages that are the same are dropped, and are the file's from then on. What only counts is marked before
(`immortal`), and may be forgotten.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from types import CodeType
from typing import NamedTuple

from martlet.sandbox import adaptive, immortal, machine_code, mappings, syscalls
from martlet.sandbox.libraries import NO_CHANGE
from martlet.sandbox.machine_code import PAGE, MachineCode, Range, call
from martlet.sandbox.syscalls import Process

# What `signal` wraps in enums, whose memory a fork would copy that goes through them.
import _signal  # type: ignore[import-not-found]  # isort: skip

_MMAP, _PWRITE, _MREMAP, _MADVISE, _PPOLL, _FALLOCATE = 9, 18, 25, 28, 271, 285
_PUNCH_HOLE = 0x3
_MAP_FIXED, _MAP_WITHOUT_RESERVE, _MOVE_TO = 0x10, 0x4000, 0x3
_DONT_NEED, _POPULATE_READ = 4, 22
_EMPTY_AT = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_WITHOUT_RESERVE
_WORD, _MASK_BYTES = 8, 8
_NOTHING_ALLOWED, _READ_AND_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
_NOTHING = bytes(PAGE)
_SIGNALS = tuple(map(int, signal.valid_signals()))
_BLOCK, _SET = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)
_PRIVATE = "rw-p"
_UNFIT = {"wf", "dc", "lo", "sh", "gd", "io", "pf", "ht", "um", "uw"}
"""Flags of memory that a file cannot stand for: wiped or kept from forks, locked, shared, stacks, devices, watched."""
_THREADS, _LINKS_OF_ONE = "/proc/self/task", 3
_PAGES = "/proc/self/pagemap"


def possible() -> bool:
    """Whether this machine can have one."""
    return machine_code.possible()


class _Place(NamedTuple):
    begin: int
    size: int


class _Heard(ctypes.Structure):
    _fields_ = (("descriptor", ctypes.c_int), ("events", ctypes.c_short), ("happened", ctypes.c_short))


class Bedrock:
    """See the module: for a process with one thread, and for its forks. It holds no descriptor.

    Raises:
        OSError: the kernel gives no memory that can be executed.
    """

    def __init__(self) -> None:
        self._code = MachineCode()
        self._beside: list[_Place] = []
        self._looks: list[tuple[list[memoryview], int]] = []
        self._marked: list[CodeType] = []
        self._ranges = self._open = self._after = machine_code.calls([])
        self._heard = _Heard(events=select.POLLIN)
        self._blocked = ctypes.c_uint64()

    def mark(self) -> None:
        """Marks what only counts in all that this process has, where that can be done. All of that is freed no more."""
        if immortal.possible():
            immortal.mark(self._marked.append)

    def lay(self, *, learnt: bool) -> None:
        """Makes what this process has now the memory that forks go back to, the next ones; those before keep theirs.

        Args:
            learnt: whether Python has learnt about the code that this process runs; about other code forks do then.

        Raises:
            OSError: the kernel lends no memory that is a file; there is nothing to go back to then.
        """
        self._ranges, self._looks = machine_code.ranges([]), []
        for code in self._marked:
            adaptive.settle(code)
            if learnt:
                adaptive.defer(code)
        while self._beside:
            machine_code.unmap(*self._beside.pop())
        file = os.memfd_create("bedrock", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            places = [*_places()]
            os.ftruncate(file, sum(place.size for place in places))
            self._prepare(places, file)
            self._move(places, file)
        except OSError:
            self._ranges, self._looks = machine_code.ranges([]), []
            raise
        finally:
            os.close(file)

    def rest(self, descriptor: int) -> None:
        """In a fork: drops the pages that are what they were, then waits until there is something to read, or a signal.

        Returns at once in a process that has threads, or cannot look at its memory.
        """
        try:
            if os.stat(_THREADS).st_nlink != _LINKS_OF_ONE:
                return
            self._look()
        except OSError:
            return
        self._heard.descriptor = descriptor
        blocked = _signal.pthread_sigmask(_BLOCK, _SIGNALS)
        self._blocked.value = sum(1 << number - 1 for number in blocked)
        try:
            if self._code.make_calls(self._open) == 0:
                self._code.give_back(self._ranges, self._after)
        finally:
            _signal.pthread_sigmask(_SET, blocked)

    def _prepare(self, places: Sequence[_Place], file: int) -> None:
        """Writes down what `rest` is to do, before the memory is moved: what is made later is not in the file."""
        read_only = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            whole = self._map_beside(size, mmap.PROT_READ, read_only)
        finally:
            os.close(read_only)
        window = self._map_beside(size, _NOTHING_ALLOWED)
        words = self._map_beside(size // PAGE * _WORD, _READ_AND_WRITE)
        known = memoryview((ctypes.c_char * words.size).from_address(words.begin))
        ranges = []
        for place, at in _placed(places):
            word, pages = at // PAGE * _WORD, place.size // PAGE
            ranges.append(Range(place.begin, window.begin + at, words.begin + word, pages))
            self._looks.append(([known[word : word + pages * _WORD]], place.begin // PAGE * _WORD))
        self._ranges = machine_code.ranges(ranges)
        heard, blocked = ctypes.addressof(self._heard), ctypes.addressof(self._blocked)
        # Where the file is seen only for that long, the kernel keeps no tables of its pages.
        again = call(_MREMAP, whole.begin, 0, size, _MOVE_TO, window.begin, wanted=window.begin)
        no_more = call(_MMAP, *window, _NOTHING_ALLOWED, _EMPTY_AT, -1, 0, wanted=window.begin)
        self._open = machine_code.calls([again])
        self._after = machine_code.calls(
            [no_more, call(_MADVISE, *words, _DONT_NEED), call(_PPOLL, heard, 1, 0, blocked, _MASK_BYTES)]
        )

    def _map_beside(self, size: int, protection: int, file: int | None = None) -> _Place:
        self._beside.append(_Place(machine_code.map_memory(size, protection, file), size))
        return self._beside[-1]

    def _move(self, places: Sequence[_Place], file: int) -> None:
        """Writes memory to a file, and maps that in its place. Raises OSError."""
        if self._code.make_calls(machine_code.calls([*_written(places, file), *_mapped(places, file)])):
            raise OSError("the memory of this process could not be moved into a file")
        _look_at(places)
        for at, size in [*_empty(file)]:
            syscalls.call(_FALLOCATE, file, _PUNCH_HOLE, at, size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, NO_CHANGE)

    def _look(self) -> None:
        """Asks the kernel what each page is."""
        pages = _open_own(_PAGES)
        try:
            for into, offset in self._looks:
                os.preadv(pages, into, offset)
        finally:
            os.close(pages)


def _places() -> Iterator[_Place]:
    """Yields the memory of this process that a file can stand for.

    That of the thread is not: the kernel writes there.
    """
    own = machine_code.thread_storage()
    for mapping in mappings.read():
        if mapping.mode == _PRIVATE and not mapping.begin <= own < mapping.end and not _UNFIT & mapping.flags:
            yield _Place(mapping.begin, mapping.size)


def _written(places: Iterable[_Place], file: int) -> Iterator[bytes]:
    for place, at in _placed(places):
        yield call(_PWRITE, file, *place, at, wanted=place.size)


def _mapped(places: Iterable[_Place], file: int) -> Iterator[bytes]:
    for place, at in _placed(places):
        yield call(
            _MMAP, *place, _READ_AND_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED, file, at, wanted=place.begin
        )


def _look_at(places: Iterable[_Place]) -> None:
    """Fills in the tables of pages, of which forks get copies: else each finds out by a fault where they are."""
    with contextlib.suppress(OSError):  # a kernel before 5.14 does not, and forks do find out
        for place in places:
            syscalls.call(_MADVISE, *place, _POPULATE_READ)


def _placed(places: Iterable[_Place]) -> Iterator[tuple[_Place, int]]:
    """Yields places, and where in the file each is."""
    at = 0
    for place in places:
        yield place, at
        at += place.size


def _empty(file: int) -> Iterator[tuple[int, int]]:
    """Yields the parts of a file that have nothing in them: where they begin, and how large they are."""
    with mmap.mmap(file, 0, mmap.MAP_SHARED, mmap.PROT_READ) as whole:
        pages = range(0, len(whole), PAGE)
        for empty, run in groupby(pages, lambda page: whole.find(_NOTHING, page, page + PAGE) == page):
            first, *others = run
            if empty:
                yield first, (len(others) + 1) * PAGE


def _open_own(path: str) -> int:
    """Opens a file about this process, which is root's if this became another user and has executed nothing since."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        syscalls.prctl(Process.SET_DUMPABLE, 1)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            syscalls.prctl(Process.SET_DUMPABLE, 0)
