"""An observer's view of a process: the calls that its filter does not allow, and their answers.

The process waits in each of them until it is answered as the enforced policy would have answered. That needs no power
over the process; reading the names that it passed does, and they are left out where it is not there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from contextlib import suppress
from dataclasses import dataclass

from martlet.sandbox.seccomp.policy import Policy, Shown

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
# struct seccomp_notif: id, pid, flags, then struct seccomp_data: number, architecture, instruction pointer, arguments.
_NOTIFICATION = struct.Struct("=QII iIQ 6Q")
_RESPONSE = struct.Struct("=QqiI")
_MAX_PATH = 4096
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Denial:
    """A call that was not allowed.

    Attributes:
        call: its name.
        arguments: those that say why, in words.
        error: what it was answered: ``EPERM``, or ``ENOSYS`` where libraries know another way.
        reason: the policy's.
    """

    call: str
    arguments: str
    error: str
    reason: str


class Observer:
    """Hears what is denied to one process and all that it starts.

    Attributes:
        listener: a descriptor that is readable while a call waits.
        over: whether the last of the processes has ended.
    """

    def __init__(self, listener: int, policy: Policy) -> None:
        """Takes the descriptor over."""
        self.listener = listener
        self.over = False
        self._policy = policy
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)

    def close(self) -> None:
        """Stops listening; what is denied from here on is answered ENOSYS by the kernel."""
        os.close(self.listener)

    def hear(self) -> list[Denial]:
        """Answers the calls that wait, and returns them."""
        denials = []
        while events := dict(self._waiting.poll(0)).get(self.listener, 0):
            if not events & select.POLLIN:
                self.over = True
                break
            # A process that is killed while it waits takes its call back.
            with suppress(FileNotFoundError):
                denials.append(self._answer())
        return denials

    def _answer(self) -> Denial:
        notification = fcntl.ioctl(self.listener, _RECEIVE, bytes(_NOTIFICATION.size))
        id, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)  # noqa: A001
        denial = self._describe(pid, number, arguments)
        fcntl.ioctl(self.listener, _SEND, _RESPONSE.pack(id, 0, -getattr(errno, denial.error), 0))
        return denial

    def _describe(self, pid: int, number: int, arguments: list[int]) -> Denial:
        name = self._policy.name_of(number)
        if name is None:
            return Denial(f"number {number}", "", "ENOSYS", "the policy does not know it")
        shown = self._policy.shown.get(name, ())
        words = [self._in_words(pid, arguments[each.argument], each) for each in shown]
        rule = self._policy.rules[name]
        error = "ENOSYS" if rule.answer == "absent" else "EPERM"
        return Denial(name, ", ".join(filter(None, words)), error, rule.reason)

    def _in_words(self, pid: int, value: int, shown: Shown) -> str:
        if shown.kind == "path":
            return _text_at(pid, value)
        if shown.kind == "number":
            return str(value & shown.mask)
        words, number = self._policy.words[shown.kind], value & shown.mask
        if shown.kind.endswith("flags"):
            return "|".join(name for name, bit in words.items() if number & bit) or hex(number)
        return next((name for name, known in words.items() if known == number), hex(number))


def _text_at(pid: int, address: int) -> str:
    """Returns the text in a process's memory, or nothing where it cannot be read."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            # Not beyond the page: what follows may not be there.
            data = memory.read(min(_MAX_PATH, _PAGE - address % _PAGE))
    except (OSError, ValueError, OverflowError):
        return ""
    return repr(data.partition(b"\0")[0].decode("utf-8", "replace"))
