"""Landlock: a second wall for files behind the private root, which a process builds around itself without power.

What a kernel's version of it does not know is left out; one without Landlock has no such wall.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from enum import IntFlag
from functools import cache

from martlet.sandbox import syscalls
from martlet.sandbox.script import AT_FDCWD, Script, Slot

# Newer than the common table of system calls: the same numbers everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_FOR_VERSION = 1
_BENEATH_PATH = 1


class Access(IntFlag):
    """What can be done with files."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIRECTORY = 1 << 3
    REMOVE_DIRECTORY = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHARACTER_DEVICE = 1 << 6
    MAKE_DIRECTORY = 1 << 7
    MAKE_FILE = 1 << 8
    MAKE_SOCKET = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK_DEVICE = 1 << 11
    MAKE_LINK = 1 << 12
    MOVE = 1 << 13
    TRUNCATE = 1 << 14
    CONTROL_DEVICE = 1 << 15


READ = Access.EXECUTE | Access.READ_FILE | Access.READ_DIRECTORY
READ_SHIELDED = READ | Access.TRUNCATE
"""As `READ`, for what nobody can write to by its mount. With each file that is opened the kernel asks who may truncate
it, and looks for that up to the root, folder by folder, unless the rule that it meets first says so."""
WRITE_FILES = Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE | Access.CONTROL_DEVICE
ALL = ~(Access.MAKE_CHARACTER_DEVICE | Access.MAKE_BLOCK_DEVICE)
INSIDE = {
    "/": READ_SHIELDED,
    **dict.fromkeys(("/dev", "/proc"), WRITE_FILES),
    **dict.fromkeys(("/dev/shm", "/tmp"), ALL),  # noqa: S108
}
"""What functions may do with which files of a private root."""
_FOR_FILES = int(Access.EXECUTE | WRITE_FILES)

_KNOWN_ACCESS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
"""The accesses of each version; those that are not here know what the one before does."""
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""Abstract unix sockets, and signals: processes inside do not reach those of processes outside."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("accesses", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


@cache
def version() -> int:
    """Returns the version of Landlock that the kernel has in use; 0 where there is none. It is asked once."""
    try:
        return syscalls.call(_CREATE_RULESET, None, 0, _ASK_FOR_VERSION)
    except OSError:
        return 0


class _NotedRule(ctypes.Structure):
    """A rule whose parent is a `Slot`, which the kernel reads the lower half of."""

    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_long))


class Ruleset:
    """What may be done with which files; everything else may not, once it is enforced.

    Rules are of files and folders, not of their names. One for a folder holds for all below it, and for what is
    mounted there later.

    Attributes:
        descriptor: of it.
    """

    def __init__(self, version: int, *, scoped: bool = True, made: int | None = None) -> None:
        """Makes an empty one, of a ``version`` above 0 that the kernel has.

        Args:
            version: see `version`.
            scoped: whether it is also about sockets and signals.
            made: the descriptor of one that is there already (`rule_by`), which this is then.
        """
        self._accesses = _accesses(version)
        self._rule = _PathRule()
        if made is None:
            attributes = _attributes(version, scoped=scoped)
            made = syscalls.call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
        self.descriptor = made

    def allow(self, place: str | int, access: Access) -> None:
        """Allows ``access`` to a file, or to a folder and what is below it.

        Harmless where there is no such path, and for a pipe, which is nowhere: nothing is forbidden about those.

        Args:
            place: a path, or a descriptor of the file.
            access: what of it applies to files only, for a file.
        """
        if isinstance(place, str):
            try:
                descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                self.allow(descriptor, access)
            finally:
                os.close(descriptor)
            return
        allowed = int(access) & self._accesses  # as numbers: new combinations of flags are slow to make
        try:
            self._add(place, allowed)
        except OSError as error:
            # The kernel says that it is no folder: to look at each place before would cost a cell more than its rule.
            if error.errno == errno.EINVAL and allowed & ~_FOR_FILES:
                self._add(place, allowed & _FOR_FILES)
            elif error.errno != errno.EBADFD:
                raise

    def _add(self, place: int, allowed: int) -> None:
        self._rule.allowed, self._rule.parent = allowed, place
        syscalls.call(_ADD_RULE, self.descriptor, _BENEATH_PATH, ctypes.byref(self._rule), 0)

    def enforce(self) -> None:
        """Holds this process and all that it starts to it, for good. It must have forbidden itself new privileges.

        Other threads that it has already are not held: there must be none.
        """
        syscalls.call(_RESTRICT_SELF, self.descriptor, 0)
        self.close()

    def close(self) -> None:
        """Lets go of it; who is held to it stays so."""
        os.close(self.descriptor)


def rule_by(script: Script, rules: Mapping[str, Access], ruleset: int) -> None:
    """Writes down how to make rules, to be enforced later.

    Args:
        script: where.
        rules: what `Ruleset.allow` is told. What is there now is there when the script runs, and of the same kind.
        ruleset: the descriptor that they are to have.
    """
    accesses, made = _accesses(version()), Slot()
    attributes = _attributes(version(), scoped=True)
    script.call("landlock_create_ruleset", attributes, ctypes.sizeof(attributes), 0, into=made)
    script.call("dup3", made, ruleset, os.O_CLOEXEC)
    script.call("close", made)
    for place, access in rules.items():
        if os.path.exists(place) and not _is_link_to_one(place, rules):
            allowed = int(access) & accesses
            _rule_path_by(script, place, allowed if os.path.isdir(place) else allowed & _FOR_FILES, ruleset)


def rule_open_by(script: Script, descriptor: int, access: Access, ruleset: int) -> None:
    """Writes down how to add a rule for a file that is open; ``ruleset`` as in `rule_by`."""
    rule = _NotedRule(int(access) & _accesses(version()) & _FOR_FILES, descriptor)
    # A pipe is nowhere, and so nothing is forbidden about it.
    script.call("landlock_add_rule", ruleset, _BENEATH_PATH, rule, 0, forgiven=errno.EBADFD)


def enforce_by(script: Script, rules: Slot) -> None:
    """Writes down what `Ruleset.enforce` does."""
    script.call("landlock_restrict_self", rules, 0)
    script.call("close", rules)


def _is_link_to_one(path: str, rules: Mapping[str, Access]) -> bool:
    """Whether the rule of another path says the same about the same file."""
    real = os.path.realpath(path)
    return real != path and rules.get(real) == rules[path]


def _rule_path_by(script: Script, path: str, allowed: int, ruleset: int) -> None:
    rule = _NotedRule(allowed)
    parent = Slot.from_buffer(rule, _NotedRule.parent.offset)
    script.call("openat", AT_FDCWD, path, os.O_PATH | os.O_CLOEXEC, into=parent)
    script.call("landlock_add_rule", ruleset, _BENEATH_PATH, rule, 0)
    script.call("close", parent)


def _accesses(version: int) -> int:
    return max(bits for since, bits in _KNOWN_ACCESS.items() if since <= version)


def _attributes(version: int, *, scoped: bool) -> _RulesetAttributes:
    scopes = _SCOPES if scoped and version >= _SCOPES_SINCE else 0
    return _RulesetAttributes(accesses=_accesses(version), scopes=scopes)
