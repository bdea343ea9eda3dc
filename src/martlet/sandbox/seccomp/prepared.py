"""Puts a policy in force that somebody else has compiled, who knows more than the process that it is for."""

from __future__ import annotations

import ctypes

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Process

_FILTER = 2
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def enforce(program: bytes) -> None:
    """Filters the calls of this process from here on by what `bpf.compile` made; there is no observer.

    The process must have forbidden itself new privileges, and have one thread only.

    Raises:
        OSError: the kernel has no filters, or refuses this one.
    """
    prepared = _Program(length=len(program) // _INSTRUCTION_BYTES, instructions=program)
    syscalls.prctl(Process.SET_SECCOMP, _FILTER, ctypes.addressof(prepared))
