"""What a process is told that runs nothing but the code below: to fork, and which system calls the fork makes first.

The process has threads, and a fork has only the one that forked: the others are made anew, each where it stood. So the
last thing that a fork does here is to go on as if nothing had been.

    message     records, then what they lead to; descriptors come with it
    record      a system call with its arguments; where to go on if it fails, and if it succeeds; whom to become if
                it returns 0, as it does in a new process or thread
    pairs       an address and a length, of memory that the fork is to have for itself: it will write there
    context     the registers of a thread

For x86-64.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap

from martlet.sandbox.script import Script

_CODE = (
    "49bd{base}"  # r13 = where everything is
    "b82f000000 418b7d00 498d7508 31d2 49c7453000020000 0f05"  # again: recvmsg(its socket, its message)
    "4885c0 0f8e9d000000 4d8da500100000"  # ends with those who ask; r12 = the first record
    "498b0424 4883f8ff 0f8494000000"  # next: -1 becomes a context
    "4883f8fe 74c3 4883f8fd 7451"  # -2 goes to the next message, -3 goes through pairs
    "498b7c2408 498b742410 498b542418 4d8b542420 4d8b442428 4d8b4c2430 0f05"  # the call of the record
    "4885c0 498b5c2438 7817 498b5c2448 7f10"  # where to go on: failed, or greater than 0
    "4d8b7c2440 4d85ff 7552"  # 0: becomes the context of the record, if it has one
    "4983c450 eba5"  # step: to the next record
    "4885db 74f5 4883fbff 7430 4989dc eb95"  # jump: 0 steps, -1 ends, all else is the next record
    "498b5c2408 498b6c2410"  # pairs: rbx = the first one, rbp = how many
    "4885ed 74db 488b3b 488b7308 ba17000000 b81c000000 0f05"  # madvise(each, MADV_POPULATE_WRITE)
    "4883c310 48ffcd ebdf"  # the next pair
    "b8e7000000 bf01000000 0f05"  # exit_group(1)
    "4d8b7c2408"  # become: r15 = the context
    "b8ffffffff baffffffff 490faeafc0000000"  # xrstor
    "4d8b7708 4d8b6f10 4d8b6718 498b6f20 498b5f28 4d8b5738 4d8b4f40 4d8b4748"  # r14, r13, r12, rbp, rbx, r10, r9, r8
    "498b5760 498b7768 498b7f70 498b4778"  # rdx, rsi, rdi, and the number of the call that it stood in
    "498b8f80000000 498ba798000000 4d8b3f ffe1"  # rcx = where it goes on; rsp; r15; there
)
_REST = "b822000000 0f05 ebf7"  # pause, for ever
_MESSAGE, _PIECES, _LENT = 8, 0x400, 0x800
_RECORDS, _DATA, _PAIRS, _CONTEXTS = 0x1000, 0x5000, 0x18000, 0x20000
_CONTEXT_BYTES, _EXTENDED_AT, _GENERAL = 0x4000, 192, 20
SIZE = 0x80000
"""Bytes that it takes beside the code."""
MOST_THREADS = (SIZE - _CONTEXTS) // _CONTEXT_BYTES
_RECORD = struct.Struct("<10Q")
_PAIR = struct.Struct("<2Q")
_MOST_PAIRS = (_CONTEXTS - _PAIRS) // _PAIR.size
_WORD = (1 << 64) - 1
_GO_ON, _END = 0, -1
_BECOME, _LISTEN, _OWN = -1, -2, -3

_WRITE, _CLOSE, _SIGNAL_MASK, _PREAD, _CLONE = 1, 3, 14, 17, 56
_PRCTL, _EVENTFD2, _DUP3, _SETNS = 157, 290, 292, 308
_SET_MASK, _MASK_BYTES = 2, 8
_SET_PARENT_DEATH_SIGNAL = 1
_NEW_PID = 0x20000000
_AS_SIBLING, _SET_TID, _CLEAR_TID = 0x8000, 0x1000000, 0x200000
_AS_THREAD = 0x3D0F00 | _CLEAR_TID
"""Memory, files, signals and all else of the process, thread-local storage of its own, and its id where libc has it."""


REST_AT = 0x200
"""Where the code is, counted from the first, for threads that are to stay as they are."""


def code(base: int) -> bytes:
    """Returns the code for a process that has `SIZE` bytes at ``base``."""
    serves = bytes.fromhex(_CODE.format(base=struct.pack("<Q", base).hex()))
    return serves.ljust(REST_AT, b"\0") + bytes.fromhex(_REST)


def beginning(base: int, listener: int) -> bytes:
    """Returns what is at ``base`` first; ``listener`` is the descriptor that messages come by."""
    message = struct.pack("<8Q", listener, 0, 0, base + _PIECES, 1, base + _LENT, 0, 0)
    piece = struct.pack("<2Q", base + _RECORDS, _PAIRS - _RECORDS)
    return message.ljust(_PIECES, b"\0") + piece


def context(registers: Sequence[int], extended: bytes) -> bytes:
    """Returns a context, of what `tracing.Thread` has."""
    return struct.pack(f"<{_GENERAL}Q", *registers[:_GENERAL]).ljust(_EXTENDED_AT, b"\0") + extended


def context_at(base: int, number: int) -> int:
    """Returns where the context of a thread is, counted from 0."""
    return base + _CONTEXTS + number * _CONTEXT_BYTES


@dataclass(frozen=True, slots=True)
class Stance:
    """How a thread is made anew: where its stack, its thread-local storage and its id are, and what it blocks."""

    stack: int
    storage: int
    id_at: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Server:
    """A process that forks.

    Attributes:
        socket: leads to it.
        listener: the descriptor that it has of the other end.
        base: where it has its messages.
        stances: its threads, the first one first.
        events: its descriptors of events, which a fork must not share, and their flags.
        free: the numbers that no descriptor of it has, the lowest ones.
        owned: how many pairs it has.
    """

    socket: socket.socket
    listener: int
    base: int
    stances: Sequence[Stance]
    events: Sequence[tuple[int, int]]
    free: Sequence[int]
    owned: int = 0

    @property
    def lives(self) -> bool:
        """Whether it is there."""
        heard = select.poll()
        heard.register(self.socket, 0)
        return not heard.poll(0)

    def foreseeing(self, ranges: Sequence[tuple[int, int]]) -> Server:
        """Returns the server as one whose forks have some of its memory for themselves before they go on.

        A page that a fork shares is copied when it is written to, one by one; which ones that will be may be known.

        Args:
            ranges: addresses and lengths in bytes, of whole pages; the first of them, if there are too many.

        Raises:
            OSError: it has ended.
        """
        pairs = b"".join(starmap(_PAIR.pack, ranges[:_MOST_PAIRS]))
        sent = os.memfd_create("pairs", os.MFD_CLOEXEC)
        try:
            os.write(sent, pairs)
            number = self.free[0]
            calls = [(_PREAD, number, self.base + _PAIRS, len(pairs), 0), (_CLOSE, number), (_LISTEN,)]
            records = [_record(*call) for call in calls]
            socket.send_fds(self.socket, [_packed(records)], [sent])
        finally:
            os.close(sent)
        return replace(self, owned=len(pairs) // _PAIR.size)


class Orders:
    """One fork of a server.

    Args:
        server: forks.
        patience: seconds that it may take.
    """

    def __init__(self, server: Server, patience: float) -> None:
        self._server = server
        self._patience = patience
        self._records: list[list[int]] = []
        self._data = b""
        self._lent: list[int] = []
        self._greeter, greets = os.pipe2(os.O_CLOEXEC)
        self._greets = self.lend(greets)
        self._family = self.lend(os.pidfd_open(os.getpid()))
        self._own = tuple(self._lent)
        first = server.stances[0].id_at
        self._add(_SETNS, self._family, _NEW_PID)
        self._add(_CLONE, _AS_SIBLING | _SET_TID | _CLEAR_TID | signal.SIGCHLD, 0, 0, first)
        self._spare: list[list[int]] = []
        for number, flags in server.events:
            self._add(_EVENTFD2, 0, flags)
            self._spare += [self._add(_DUP3, 0, number, flags & os.O_CLOEXEC), self._add(_CLOSE, 0)]

    def lend(self, descriptor: int) -> int:
        """See `launcher.Elsewhere`."""
        self._lent.append(descriptor)
        return self._server.free[len(self._lent) - 1]

    def put(self, descriptor: int, number: int) -> None:
        """Gives the fork a descriptor of this process for the one that the server has under a number."""
        self._add(_DUP3, self.lend(descriptor), number, 0)

    def tie(self) -> None:
        """Has the fork end with its parent, which is that of the server."""
        self._add(_PRCTL, _SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    def run(self, script: Script) -> None:
        """See `launcher.Elsewhere`."""
        for numbers, may_fail in script.placed(self._keep):
            self._add(*numbers, failed=_GO_ON if may_fail else _END)

    def fork(self) -> int:
        """See `launcher.Elsewhere`."""
        self._let_threads_go()
        try:
            try:
                socket.send_fds(self._server.socket, [self._message()], self._lent)
            finally:
                for descriptor in self._own:
                    os.close(descriptor)
            return self._hear()
        finally:
            os.close(self._greeter)

    def _let_threads_go(self) -> None:
        """Adds the end of what the fork does."""
        server, (first, *others) = self._server, self._server.stances
        for record in self._spare:
            record[1] = server.free[len(self._lent)]  # what is lent has the lower ones
        if server.owned:
            self._add(_OWN, server.base + _PAIRS, server.owned)
        self._add(_WRITE, self._greets, first.id_at, 4)
        for number in (server.listener, *server.free[: len(self._lent)]):
            self._add(_CLOSE, number, failed=_GO_ON)  # it may have been closed
        for place, thread in enumerate(others, start=1):
            self._block(thread.blocked)
            at = context_at(server.base, place)
            self._add(_CLONE, _AS_THREAD, thread.stack, thread.id_at, thread.id_at, thread.storage, became=at)
        self._block(first.blocked)
        self._add(_BECOME, context_at(server.base, 0))

    def _message(self) -> bytes:
        """Returns the records, with what the server itself does after them."""
        after = self._server.base + _RECORDS + len(self._records) * _RECORD.size
        for record in self._records[:2]:
            record[7] = after
        self._records[1][9] = after
        for number in self._server.free[: len(self._lent)]:
            self._add(_CLOSE, number, failed=_GO_ON)
        self._add(_LISTEN)
        records = _packed(self._records)
        if len(records) > _DATA - _RECORDS or len(self._data) > _PAIRS - _DATA:
            raise OSError("there are more calls than a fork server has room for")
        return records.ljust(_DATA - _RECORDS, b"\0") + self._data

    def _hear(self) -> int:
        heard = select.poll()
        heard.register(self._greeter, select.POLLIN)
        if not heard.poll(self._patience * 1000):
            raise OSError("no machine was forked in time")
        greeting = os.read(self._greeter, 4)
        if len(greeting) < 4:
            raise OSError("no machine could be forked")
        return int.from_bytes(greeting, "little")

    def _block(self, signals: int) -> None:
        self._add(_SIGNAL_MASK, _SET_MASK, self._keep(struct.pack("<Q", signals)), 0, _MASK_BYTES)

    def _keep(self, data: bytes) -> int:
        at = self._server.base + _DATA + len(self._data)
        self._data += data + bytes(-len(data) % 8)
        return at

    def _add(self, number: int, *arguments: int, failed: int = _END, became: int = 0) -> list[int]:
        self._records.append(_record(number, *arguments, failed=failed, became=became))
        return self._records[-1]


def _record(number: int, *arguments: int, failed: int = _END, became: int = 0) -> list[int]:
    missing = [0] * (6 - len(arguments))
    return [number, *arguments, *missing, failed, became, _GO_ON]


def _packed(records: Sequence[Sequence[int]]) -> bytes:
    return b"".join(_RECORD.pack(*(each & _WORD for each in record)) for record in records)
