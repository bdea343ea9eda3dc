"""A process that dies with the one that forked it."""

from __future__ import annotations

import ctypes
import os
import select
import signal

from martlet.sandbox import syscalls
from martlet.sandbox.script import Script
from martlet.sandbox.syscalls import Process


class _Watched(ctypes.Structure):
    _fields_ = (("descriptor", ctypes.c_int), ("events", ctypes.c_short), ("happened", ctypes.c_short))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Lifeline:
    """Ties a process to the one that forked it: the kernel kills it when the parent is gone.

    The kernel forgets the wish whenever the user id changes, and overlooks a parent that died before the wish
    was made. A pipe whose write end only the parent holds closes both gaps.

    Attributes:
        reader: the end that a child keeps.
        writer: the end that belongs to the parent.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)

    def keep_reader(self) -> None:
        """In the child, first of all: lets go of the end that belongs to the parent."""
        os.close(self.writer)

    def hold(self) -> None:
        """In the child: asks to be killed with the parent; ends at once if that is gone already."""
        syscalls.prctl(Process.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        parent = select.poll()
        parent.register(self.reader, 0)
        if parent.poll(0):
            os._exit(1)

    def hold_by(self, script: Script) -> None:
        """Writes down what `hold` does; the script fails where that would end the child."""
        script.prctl(Process.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        watched, at_once = _Watched(descriptor=self.reader), _Time()
        script.call("ppoll", watched, 1, at_once, None, 0, wanted=0)

    def release(self) -> None:
        """In the child: closes the pipe; `hold` has been called for the last time."""
        os.close(self.reader)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """In the child: asks the kernel for a signal when the parent is gone; enough where the user id never changes."""
    syscalls.prctl(Process.SET_PARENT_DEATH_SIGNAL, number)
