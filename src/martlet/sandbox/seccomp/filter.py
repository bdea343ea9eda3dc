"""Puts a compiled policy in force for the calling process and all that it starts, for good."""

from __future__ import annotations

import ctypes

from martlet.sandbox import syscalls
from martlet.sandbox.script import Keep, Script, Slot
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.bpf import Decides
from martlet.sandbox.seccomp.policy import Policy

_SET_MODE_FILTER = 1
_NEW_LISTENER = 0x8
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))
    code: bytes

    def placed(self, keep: Keep) -> bytes:
        """As in `script.Placed`."""
        return bytes(_Program(self.length, keep(self.code)))


class Filter:
    """A program that is ready to be loaded by each of the processes that are forked from this one.

    Args:
        policy: what it enforces.
        observed: whether calls that are not allowed wait for the answer of an observer (see `denials`).
        decides: about which calls; by default all.
    """

    def __init__(self, policy: Policy, *, observed: bool = False, decides: Decides = lambda _: True) -> None:
        program = bpf.compile(policy, observed=observed, decides=decides)
        length, instructions = len(program) // _INSTRUCTION_BYTES, ctypes.c_char_p(program)
        self._program = _Program(length, ctypes.cast(instructions, ctypes.c_void_p))
        self._program.code = program  # and so it stays where it is
        self._flags = _NEW_LISTENER if observed else 0
        self._seccomp = policy.numbers["seccomp"]

    def load(self) -> int:
        """Filters the calls of this process from here on. It must have forbidden itself new privileges.

        Other threads that it has already are not filtered: there must be none.

        Returns:
            The descriptor that an observer listens on; nothing of use where there is to be none.

        Raises:
            OSError: the kernel has no filters, or refuses this one.
        """
        return syscalls.call(self._seccomp, _SET_MODE_FILTER, self._flags, ctypes.byref(self._program))

    def load_by(self, script: Script, into: Slot | None = None) -> None:
        """Writes down what `load` does; ``into`` takes what that returns."""
        script.call("seccomp", _SET_MODE_FILTER, self._flags, self._program, into=into)
