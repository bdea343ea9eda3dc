"""System calls that are decided now and made later, by a fork that has nothing left to look up.

A fork of Python copies every page with an object that it so much as looks at, and the first call of each function looks
at two or more. What a fork is to do before it runs anything else is written down in its parent instead, once for all
forks of a kind: the fork goes through a list and makes the calls, over and over with the same few objects.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import BIND, DETACH, Clone, Mount, Process

Slot = ctypes.c_long
"""A number that is not known yet: one that is set before the script runs, or that one of its calls returns."""
Number = int | Slot
Text = ctypes.Array[ctypes.c_char]
"""A text that is not known yet (`text`)."""
Argument = int | str | bytes | None | Slot | ctypes.Structure | ctypes.Array[Any]
AT_FDCWD = -100


Keep = Callable[[bytes], int]
"""Puts bytes where another process will have them, and returns their address there."""


def text(size: int) -> Text:
    """Returns room for a text of at most ``size - 1`` bytes, which is set as its ``value``."""
    return ctypes.create_string_buffer(size)


Run = Callable[["Script"], None]
"""What is done with a script: `Script.run`, or `Script.rehearse`."""


class _Bytes(ctypes.c_char_p):
    """What the kernel is to read, zeros in it too."""

    def __init__(self, whole: bytes) -> None:
        super().__init__(whole)
        self.whole = whole


class Calls(Protocol):
    """Who makes system calls, at once (the module `syscalls`) or later (a `Script`)."""

    def unshare(self, namespaces: Clone) -> None:
        """As in `syscalls`."""

    def mount(self, kind: str, target: str, flags: Mount, options: str = "") -> None:
        """As in `syscalls`."""

    def bind(self, source: str, target: str) -> None:
        """As in `syscalls`."""

    def unmount(self, target: str) -> None:
        """As in `syscalls`."""

    def prctl(self, operation: Process, argument: int = 0, second: int = 0) -> None:
        """As in `syscalls`."""

    def clear_capabilities(self) -> None:
        """As in `syscalls`."""


class _Call(NamedTuple):
    arguments: tuple[Any, ...]
    into: Slot | None
    wanted: int | None
    forgiven: int
    name: str


@runtime_checkable
class Placed(Protocol):
    """A structure that leads to something outside of it."""

    def placed(self, keep: Keep) -> bytes:
        """Returns it as it is in the memory of another process, for which ``keep`` keeps what it leads to."""


class Script:
    """See the module. It runs in a process with one thread.

    Args:
        numbers: of system calls, by their names, on this kind of machine.
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers
        self._calls: list[_Call] = []
        self._constants: dict[int, Slot] = {}
        self._nothing = Slot(numbers["getpid"])

    def call(
        self,
        name: str,
        *arguments: Argument,
        into: Slot | None = None,
        wanted: int | None = None,
        forgiven: int = 0,
    ) -> None:
        """Adds a call.

        Args:
            name: of the call.
            arguments: numbers, slots that will hold numbers, text and structures that the kernel is to read.
            into: takes what the call returns, for calls after it.
            wanted: what it must return; by default whatever is no failure.
            forgiven: the number of an error that is none here.
        """
        ready = (Slot(self._numbers[name]), *map(self._ready, arguments))
        self._calls.append(_Call(ready, into, wanted, forgiven, name))

    def run(self) -> None:
        """Makes the calls, up to the first that fails. Raises OSError, which names that."""
        make = syscalls.make
        for arguments, into, wanted, forgiven, name in self._calls:
            result = make(*arguments)
            if into is not None:
                into.value = result
            if result < 0:
                error = ctypes.get_errno()
                if error != forgiven:
                    raise OSError(error, f"{name}: {os.strerror(error)}")
            elif wanted is not None and result != wanted:
                raise OSError(f"{name}: {result}, where {wanted} was wanted")

    def rehearse(self) -> None:
        """Goes the way of `run`, and asks for nothing: who does so before has copied the memory that it takes."""
        make, nothing = syscalls.make, self._nothing
        for (_, *arguments), into, _, _, _ in self._calls:
            make(nothing, *arguments)
            if into is not None:
                into.value = into.value

    def placed(self, keep: Keep) -> Iterator[tuple[list[int], bool]]:
        """Yields the calls for a process that has nothing of this one: each its number and its arguments, with what is
        in the slots now, and whether it may fail. What a call returns there is not for those after it.
        """
        for arguments, _, wanted, forgiven, name in self._calls:
            if wanted is not None:
                raise ValueError(f"{name}: what it returns cannot be looked at")
            yield [_placed(argument, keep) for argument in arguments], forgiven != 0

    def unshare(self, namespaces: Clone) -> None:
        """Adds what `syscalls` does, as do the next ones."""
        self.call("unshare", namespaces)

    def setns(self, descriptor: Number, namespace: Clone) -> None:
        """See `unshare`."""
        self.call("setns", descriptor, namespace)

    def mount(self, kind: str, target: str, flags: Mount, options: str | Text = "") -> None:
        """See `unshare`."""
        self.call("mount", kind, target, kind, flags, options)

    def bind(self, source: str | Text, target: str) -> None:
        """See `unshare`."""
        self.call("mount", source, target, None, BIND, None)

    def unmount(self, target: str) -> None:
        """See `unshare`."""
        self.call("umount2", target, DETACH)

    def make_folder(self, path: str) -> None:
        """Adds what `os.mkdir` does."""
        self.call("mkdirat", AT_FDCWD, path, 0o777)

    def prctl(self, operation: Process, argument: int = 0, second: int = 0) -> None:
        """See `unshare`."""
        self.call("prctl", operation, argument, second, 0, 0)

    def clear_capabilities(self) -> None:
        """See `unshare`."""
        self.call("capset", syscalls.CAPABILITIES_OF_THIS_PROCESS, syscalls.NO_CAPABILITIES)

    def _ready(self, argument: Argument) -> object:
        """Returns what is handed to the kernel as it is."""
        match argument:
            case None:
                return self._ready(0)
            case int():
                return self._constants.setdefault(int(argument), Slot(argument))
            case str() | bytes():
                return _Bytes(os.fsencode(argument))
            case Slot():
                return argument
            case _:
                return ctypes.byref(argument)


def _placed(argument: Any, keep: Keep) -> int:
    """Returns what is handed to the kernel in another process."""
    if isinstance(argument, Slot):
        return argument.value
    if isinstance(argument, _Bytes):
        return keep(argument.whole + b"\0")
    pointed = argument._obj
    return keep(pointed.placed(keep) if isinstance(pointed, Placed) else bytes(pointed))
