"""Makes a server of forks of a program that knows nothing of it.

It is stopped from outside, while all of its threads wait (`tracing`), and the first of them is left with other code,
which forks as it is told (`orders`). For x86-64, and programs with the GNU C library.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from martlet.microvm import orders
from martlet.microvm.orders import Server, Stance
from martlet.sandbox.tracing import Register, Stopped, Thread

_EVENTS = "anon_inode:[eventfd]"
_EVENT_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_NOT_FORKED = "dc"
_MMAP, _MADVISE = 9, 28
_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE_ANONYMOUS = 0x22
_DO_FORK = 11
_PAGE = 4096
_STORAGE_BYTES = 2048
_MOST_DESCRIPTORS = 256


def capture(pid: int, patience: float, leads: socket.socket, listener: int) -> Server:
    """Stops a child of this process where it is, and leaves it with the code that forks.

    Args:
        pid: of the child.
        patience: seconds to wait until all of its threads do.
        leads: a socket (``SOCK_SEQPACKET``), by which it is told what forks are to do.
        listener: the descriptor that the child has of the other end.

    Raises:
        OSError: it does not come to rest, has too many threads, or has ended. If it has not, it stands still.
        ValueError: its threads are none of the GNU C library's.
    """
    stopped = Stopped.at_rest(pid, patience)
    if len(stopped.threads) > orders.MOST_THREADS:
        raise OSError(f"a process with {len(stopped.threads)} threads")
    base = stopped.call(_MMAP, 0, orders.SIZE, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    at = stopped.call(_MMAP, 0, _PAGE, _READ | _EXECUTE, _PRIVATE_ANONYMOUS, -1, 0)
    for begin, end in _left_out(stopped.place):
        stopped.call(_MADVISE, begin, end - begin, _DO_FORK)
    stopped.write(base, orders.beginning(base, listener))
    for number, thread in enumerate(stopped.threads):
        stopped.write(orders.context_at(base, number), orders.context(thread.again, thread.extended))
    stopped.write(at, orders.code(base))
    stances = [_stance(stopped, thread) for thread in stopped.threads]
    names = {int(name): os.readlink(stopped.place / "fd" / name) for name in os.listdir(stopped.place / "fd")}
    events = [(number, _flags(stopped.place, number)) for number, name in names.items() if name == _EVENTS]
    free = [number for number in range(3, _MOST_DESCRIPTORS) if number not in names]
    stopped.release(at, at + orders.REST_AT)
    return Server(leads, listener, base, stances, events, free)


def _left_out(place: Path) -> list[tuple[int, int]]:
    """Returns where the memory begins and ends that no fork was to have: of QEMU the guest's, and the code for it."""
    found: list[tuple[int, int]] = []
    begin = end = 0
    for line in (place / "smaps").read_text().splitlines():
        first, *rest = line.split()
        if first == "VmFlags:":
            if _NOT_FORKED in rest:
                found.append((begin, end))
        elif not first.endswith(":"):
            begin, end = (int(each, 16) for each in first.split("-"))
    return found


def _stance(stopped: Stopped, thread: Thread) -> Stance:
    storage = thread.registers[Register.FS_BASE]
    words = struct.unpack(f"{_STORAGE_BYTES // 4}I", stopped.read(storage, _STORAGE_BYTES))
    # Where libc has the id of the thread: the kernel writes there whom it makes anew.
    return Stance(
        thread.registers[Register.RSP], storage, storage + 4 * words.index(thread.id), thread.blocked
    )


def _flags(place: Path, descriptor: int) -> int:
    lines = (place / "fdinfo" / str(descriptor)).read_text().splitlines()
    flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return flags & _EVENT_FLAGS
