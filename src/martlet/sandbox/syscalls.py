"""The system calls that Python's standard library does not have, as functions that raise `OSError`."""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum, IntFlag
from typing import Any

# Naming a function's arguments also looks it up: a forked cell need not.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.capset.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
_libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.syscall.restype = ctypes.c_long
_libc_with_lock = ctypes.PyDLL(None, use_errno=True)
"""The same, for a call that keeps the lock of the interpreter."""
_libc_with_lock.fork.argtypes = ()
make = _libc_with_lock.syscall
"""Makes a system call: its number and arguments are of ctypes, each as wide as a register. Returns -1 where it fails;
`ctypes.get_errno` says why then."""
make.restype = ctypes.c_long

# One number on every architecture that Linux runs Python on but alpha: it is newer than the common table.
_SYS_MOUNT_SETATTR = 442
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_AT_RECURSIVE = 0x8000


class Clone(IntFlag):
    """Namespaces, as ``unshare`` and ``setns`` name them; FILES is what threads share of root and directory."""

    FILES = 0x00000200
    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NETWORK = 0x40000000


class Mount(IntFlag):
    """Flags of ``mount``."""

    READ_ONLY = 0x1
    NO_SUID = 0x2
    NO_DEV = 0x4
    NO_EXEC = 0x8
    REMOUNT = 0x20
    BIND = 0x1000
    RECURSIVE = 0x4000
    PRIVATE = 0x40000
    SHARED = 0x100000


class MountAttribute(IntFlag):
    """Attributes that ``mount_setattr`` gives a tree of mounts."""

    READ_ONLY = 0x1
    NO_SUID = 0x2
    NO_DEV = 0x4
    NO_EXEC = 0x8


class Process(IntEnum):
    """Operations of ``prctl``."""

    SET_PARENT_DEATH_SIGNAL = 1
    SET_DUMPABLE = 4
    KEEP_CAPABILITIES = 8
    SET_SECCOMP = 22
    DROP_BOUNDING_CAPABILITY = 24
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVILEGES = 38
    SET_NO_HUGE_PAGES = 41
    AMBIENT_CAPABILITIES = 47


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


BIND = Mount.BIND | Mount.RECURSIVE
_MAKE_PRIVATE = Mount.PRIVATE | Mount.RECURSIVE
DETACH = 2
_POPULATE_WRITE = 23
# Made here once, because making the type of an array costs more than the call that it is for.
CAPABILITIES_OF_THIS_PROCESS = _CapabilityHeader(version=0x20080522, pid=0)
NO_CAPABILITIES = (_CapabilityData * 2)()
_TO_ADMINISTER = 1 << 21
POWER_TO_MOUNT = (_CapabilityData * 2)(_CapabilityData(effective=_TO_ADMINISTER, permitted=_TO_ADMINISTER))


def unshare(namespaces: Clone) -> None:
    """Moves the process into new namespaces; a new PID namespace is for the next child only."""
    _check(_libc.unshare(namespaces), "unshare", namespaces)


def setns(descriptor: int, namespace: Clone) -> None:
    """Moves the process into the namespace of ``descriptor``; a PID namespace is for its next children."""
    _check(_libc.setns(descriptor, namespace), "setns", namespace)


def fork() -> int:
    """Forks without what `os.fork` does for threads, locks and the numbers of `random`. Returns what that returns.

    Only for a process with one thread that has the modules see to none of their forks (`os.register_at_fork`), and
    whose fork draws no number before it has seeded `random`: what modules do then costs a fork a fifth of the memory
    that it copies.
    """
    pid: int = _libc_with_lock.fork()
    _check(pid, "fork")
    return pid


def mount(kind: str, target: str, flags: Mount, options: str = "") -> None:
    """Mounts a file system of the kernel's own (``tmpfs``, ``proc``), or changes one with REMOUNT."""
    name = kind.encode()
    result = _libc.mount(name, os.fsencode(target), name, flags, options.encode())
    _check(result, "mount", kind, target)


def bind(source: str, target: str) -> None:
    """Shows the tree at ``source`` at ``target`` too, with what is mounted in it."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), None, BIND, None)
    _check(result, "mount --rbind", source, target)


def make_private() -> None:
    """Lets no later mount of this namespace reach the one it was copied from, nor the other way."""
    _check(_libc.mount(None, b"/", None, _MAKE_PRIVATE, None), "mount --make-rprivate")


def make_shared(target: str) -> None:
    """Lets what is mounted below the mount at ``target`` from now on reach the copies of it."""
    _check(_libc.mount(None, os.fsencode(target), None, Mount.SHARED, None), "mount --make-shared", target)


def show(source: str, target: str, attributes: MountAttribute) -> None:
    """Shows the tree at ``source`` at ``target`` with more attributes, which it has from the first moment on.

    Nobody to whom the mount is propagated sees it without them, as whoever used `bind` and `mount_setattr` would.
    """
    tree = open_tree(source, attributes)
    try:
        move_mount(tree, target)
    finally:
        os.close(tree)


def mount_setattr(target: str, attributes: MountAttribute) -> None:
    """Adds attributes to the mount at ``target`` and to every mount below it, and makes them private."""
    wanted = _MountAttributes(attr_set=attributes, propagation=Mount.PRIVATE)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    _check(result, "mount_setattr", target)


def open_tree(source: str, attributes: MountAttribute) -> int:
    """Returns a descriptor of a mount of the folder ``source`` that is in no tree yet (`move_mount`)."""
    tree = call(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    wanted = _MountAttributes(attr_set=attributes, propagation=Mount.PRIVATE)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    try:
        call(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size)
    except OSError:
        os.close(tree)
        raise
    return tree


def move_mount(tree: int, target: str) -> None:
    """Puts what `open_tree` returned at ``target``, in the mount namespace of the caller."""
    call(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def unmount(target: str) -> None:
    """Takes the mount at ``target`` out of the tree now; it goes when nobody uses it any more."""
    _check(_libc.umount2(os.fsencode(target), DETACH), "umount", target)


def pivot_root(new: str, old: str) -> None:
    """Makes ``new`` the root and puts the former root at ``old``."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root", new)


def prctl(operation: Process, argument: int = 0, second: int = 0) -> None:
    """Runs an operation on the calling process."""
    _check(_libc.prctl(operation, argument, second, 0, 0), "prctl", operation, argument)


def call(number: int, *arguments: Any) -> int:
    """Makes a system call that libc has no function for; ``arguments`` are integers or of ctypes."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    _check(result, "system call", number)
    return result


def populate(begin: int, length: int) -> None:
    """Has the kernel give the process pages to write to, in a range of its memory that has none or shares them."""
    _check(_libc.madvise(begin, length, _POPULATE_WRITE), "madvise", begin, length)


def clear_capabilities() -> None:
    """Empties the effective, permitted and inheritable sets."""
    result = _libc.capset(ctypes.byref(CAPABILITIES_OF_THIS_PROCESS), ctypes.byref(NO_CAPABILITIES))
    _check(result, "capset")


def _check(result: int, *call: object) -> None:
    if result < 0:
        code = ctypes.get_errno()
        # Only here, because a fork copies the memory of what makes names of flags.
        names = (getattr(each, "name", None) or str(each) for each in call)
        raise OSError(code, f"{' '.join(names)}: {os.strerror(code)}")
