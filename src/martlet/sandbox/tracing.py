"""Looks into a child of this process that runs a program of somebody else's, and has it make system calls: by ptrace.

For x86-64.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Self

_SEIZE, _INTERRUPT, _DETACH, _STEP, _POKE = 0x4206, 0x4207, 17, 9, 5
_GET_SET, _SET_SET = 0x4204, 0x4205
_GENERAL, _EXTENDED = 1, 0x202
_END_WITH_ME = 0x100000
ALL = 0x40000000
"""For ``waitpid``: to hear of threads, too."""
_EXTENDED_BYTES = 16 * 1024
_WORD = (1 << 64) - 1
_NO_CALL = _WORD
_NO_CALLS = {_NO_CALL, 219}
"""Where there is none, or one that goes on (``restart_syscall``): of that nobody knows what it was."""
_SYSCALL_BYTES, _WORD_BYTES = 2, 8
_WAITED = frozenset(_WORD + 1 - code for code in (512, 513, 514, 516))
"""What a call has returned that waited for something: the kernel makes it again."""
_LOOK_AGAIN = 0.01
_LOOKS = 3
_LOOK_FOR_STOP, _STOPS_SECONDS = 0.0002, 2.0

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (ctypes.c_long,) * 4
_ptrace.restype = ctypes.c_long


class Register(IntEnum):
    """Where the kernel has which register, and the number of the call that a thread is in."""

    RAX, CALL, RIP, RSP, FS_BASE = 10, 15, 16, 19, 21


_REGISTERS = struct.Struct("27Q")
_ARGUMENTS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9


class Thread(NamedTuple):
    """One that stands still.

    Attributes:
        id: of the thread.
        registers: as numbers, by `Register`.
        extended: what else there is of them, as ``xsave`` writes it.
        blocked: the signals that it blocks, a bit each.
    """

    id: int
    registers: list[int]
    extended: bytes
    blocked: int

    @property
    def waits(self) -> bool:
        """Whether it waits in a system call."""
        return self.registers[Register.RAX] in _WAITED and self.registers[Register.CALL] not in _NO_CALLS

    @property
    def again(self) -> list[int]:
        """The registers with which it makes the call that it waits in once more."""
        registers = [*self.registers]
        registers[Register.RIP] -= _SYSCALL_BYTES
        registers[Register.RAX] = registers[Register.CALL]
        return registers


class Stopped:
    """A child whose threads stand still, until `release`; it ends with this process.

    Args:
        pid: of the child.

    Attributes:
        place: its folder in ``/proc``.
        threads: its threads, the first one first.

    Raises:
        OSError: it cannot be looked into, or has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.place = Path("/proc", str(pid))
        self.threads: list[Thread] = []
        for name in sorted(os.listdir(self.place / "task"), key=int):
            thread = int(name)
            _trace(_SEIZE, thread, 0, _END_WITH_ME)
            _trace(_INTERRUPT, thread)
            _wait(thread)
            registers = [*_REGISTERS.unpack(_registers(thread, _GENERAL, _REGISTERS.size))]
            extended = _registers(thread, _EXTENDED, _EXTENDED_BYTES)
            self.threads.append(Thread(thread, registers, extended, self._blocked(name)))
        self._memory = os.open(self.place / "mem", os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def at_rest(cls, pid: int, patience: float) -> Self:
        """Returns a child once all of its threads wait.

        Args:
            pid: as for this class.
            patience: seconds to wait for that.

        Raises:
            OSError: as this class, or they do not.
        """
        # It is watched first: some calls that are disturbed are not made again.
        deadline, looks = time.monotonic() + patience, 0
        while time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
            looks = looks + 1 if _rests(Path("/proc", str(pid), "task")) else 0
            if looks == _LOOKS:
                stopped = cls(pid)
                if all(thread.waits for thread in stopped.threads):
                    return stopped
                stopped._go_on()
                looks = 0
        raise OSError(f"the process {pid} does not come to rest")

    def call(self, number: int, *arguments: int) -> int:
        """Has its first thread make a system call. Returns the result; raises OSError where that is a failure."""
        first = self.threads[0]
        registers = first.again
        registers[Register.RAX], registers[Register.CALL] = number, _NO_CALL
        for register, argument in zip(_ARGUMENTS, arguments, strict=False):
            registers[register] = argument & _WORD
        _set_registers(first.id, registers)
        _trace(_STEP, first.id)
        _wait(first.id)
        result: int = _REGISTERS.unpack(_registers(first.id, _GENERAL, _REGISTERS.size))[Register.RAX]
        if result > _WORD - 4096:
            code = _WORD + 1 - result
            raise OSError(code, f"a system call of {self.pid}: {os.strerror(code)}")
        return result

    def read(self, address: int, size: int) -> bytes:
        """Returns what is in its memory."""
        return os.pread(self._memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        """Writes to its memory, also where it may not itself; zeros follow up to a whole word."""
        data += bytes(-len(data) % _WORD_BYTES)
        for offset, (word,) in enumerate(struct.iter_unpack("=q", data)):
            _trace(_POKE, self.pid, address + offset * _WORD_BYTES, word)

    def release(self, first: int, others: int) -> None:
        """Lets it go on, its first thread with the code at one address, the others with that at another one."""
        for thread in self.threads:
            registers = [*thread.registers]
            registers[Register.RIP] = first if thread is self.threads[0] else others
            registers[Register.CALL] = _NO_CALL
            _set_registers(thread.id, registers)
        self._detach()

    def _go_on(self) -> None:
        """Lets it go on as if nothing had been."""
        for thread in self.threads:
            if thread.waits:  # the kernel would go on with the call under another number
                registers = thread.again
                registers[Register.CALL] = _NO_CALL
                _set_registers(thread.id, registers)
        self._detach()

    def _detach(self) -> None:
        os.close(self._memory)
        for thread in self.threads:
            _trace(_DETACH, thread.id)

    def _blocked(self, thread: str) -> int:
        lines = (self.place / "task" / thread / "status").read_text().splitlines()
        return next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))


def _rests(tasks: Path) -> bool:
    """Whether all threads wait at the moment."""
    return all((task / "syscall").read_text() != "running\n" for task in tasks.iterdir())


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _registers(thread: int, kind: int, size: int) -> bytes:
    room = ctypes.create_string_buffer(size)
    piece = _Piece(ctypes.addressof(room), size)
    _trace(_GET_SET, thread, kind, ctypes.addressof(piece))
    return room.raw[: piece.length]


def _set_registers(thread: int, registers: list[int]) -> None:
    data = _REGISTERS.pack(*registers)
    room = ctypes.create_string_buffer(data, len(data))
    piece = _Piece(ctypes.addressof(room), len(data))
    _trace(_SET_SET, thread, _GENERAL, ctypes.addressof(piece))


def _wait(thread: int) -> None:
    """Waits until a thread stops because that was asked for."""
    # Not for ever: of the end of a first thread the kernel tells once the others have ended and were waited for.
    deadline = time.monotonic() + _STOPS_SECONDS
    while (heard := os.waitpid(thread, ALL | os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            raise OSError(f"the thread {thread} does not stop")
        time.sleep(_LOOK_FOR_STOP)
    _, status = heard
    if not os.WIFSTOPPED(status):
        raise OSError(f"the thread {thread} has ended")
    if (number := os.WSTOPSIG(status)) != signal.SIGTRAP:
        raise OSError(f"the thread {thread} was stopped by {signal.Signals(number).name}")


def _trace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(request, thread, address, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x} of {thread}: {os.strerror(code)}")
