"""A machine that runs, of which others are forked: where the processor is emulated, and a start is mostly translation.

QEMU restores the saved machine once for a zygote, and the guest practises; then it stands still, and each clone is a
fork of the whole process: the guest's memory, the devices, and all code that has been translated, shared until it is
written to. QEMU knows nothing of that. It is stopped from outside, while all of its threads wait (`tracing`), and the
first of them is left with other code, which forks as it is told (`orders`).
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from martlet.microvm import orders, qemu
from martlet.microvm.control import CONTROL, LINKS, Control, Nonsense
from martlet.microvm.execution import execute
from martlet.microvm.links import Interests, Link, PortGone
from martlet.microvm.orders import Server, Stance
from martlet.microvm.qemu_machine import CHANNELS, QMP, TAP
from martlet.microvm.qmp import Qmp
from martlet.sandbox import guest_link, root, syscalls, tracing
from martlet.sandbox.lifeline import die_with_parent
from martlet.sandbox.syscalls import Clone
from martlet.sandbox.tracing import Register, Stopped, Thread

LISTENER = 9
"""The descriptor that it is told by."""
_SECONDS = 10.0
_ROUNDS = 3
_HEALTH = b"GET /_martlet/health HTTP/1.1\r\nhost: martlet\r\nconnection: close\r\n\r\n"
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


def make(command: Sequence[str], files: Mapping[int, int], state: int) -> Server | None:
    """Returns a server of clones; None where none can be made: why is printed.

    Args:
        command: QEMU with its arguments, for a machine that is restored.
        files: descriptors of the template's files, by the numbers that the command line has for them.
        state: that of the state of the machine.
    """
    pairs = {number: socket.socketpair() for number in (QMP, *CHANNELS.values())}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lent = {number: pair[1].fileno() for number, pair in pairs.items()}
    lent |= {LISTENER: theirs.fileno(), **files}
    pid = os.fork()
    if pid == 0:
        _become(command, lent)
    theirs.close()
    for _, other in pairs.values():
        other.close()
    try:
        _practise({number: pair[0] for number, pair in pairs.items()}, state)
        return _capture(pid, ours)
    except (OSError, EOFError, Nonsense, PortGone, ValueError):
        traceback.print_exc()
        os.kill(pid, signal.SIGKILL)
        while os.waitpid(-1, tracing.ALL)[0] != pid:
            pass  # threads that are traced end one by one
        ours.close()
        return None
    finally:
        for end, _ in pairs.values():
            end.close()


def _become(command: Sequence[str], lent: dict[int, int]) -> None:
    """In the child: becomes QEMU, without a network, and with the ``/proc`` that its command line leads to."""
    try:
        die_with_parent()
        syscalls.unshare(Clone.MOUNT | Clone.NETWORK)
        syscalls.bind(root.HOST_PROC, "/proc")
        if qemu.has_tap(command):
            guest_link.make_alone()
            lent[TAP] = guest_link.attach()
        execute(list(command), lent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _practise(ends: Mapping[int, socket.socket], state: int) -> None:
    """Restores the machine, has its guest go the ways of a clone, and stops it."""
    os.lseek(state, 0, os.SEEK_SET)
    ends[QMP].settimeout(_SECONDS)
    qmp = Qmp(ends[QMP])
    qemu.restore(qmp, state)
    control = Control(ends[CHANNELS[CONTROL]].fileno())
    for _ in range(_ROUNDS):
        control.send(op="practise")
        if control.receive()["cell"]:
            _ask(ends[CHANNELS[LINKS[0]]].fileno())
    qmp.execute("stop")


def _ask(port: int) -> None:
    """Asks the cell for its health, over a link."""
    interests = Interests()
    link = Link(port, interests)
    asks, connection = socket.socketpair()
    with asks:
        asks.sendall(_HEALTH)
        asks.shutdown(socket.SHUT_WR)
        link.carry(connection)
        while not link.free:
            for descriptor, event in interests.events.poll(_SECONDS) or _too_late():
                link.serve(descriptor, event)


def _too_late() -> list[tuple[int, int]]:
    raise OSError("the guest does not answer")


def _capture(pid: int, ours: socket.socket) -> Server:
    """Stops a monitor where it is, and leaves it with the code that forks."""
    stopped = Stopped.at_rest(pid, root.HOST_PROC, _SECONDS)
    if len(stopped.threads) > orders.MOST_THREADS:
        raise OSError(f"a monitor with {len(stopped.threads)} threads")
    base = stopped.call(_MMAP, 0, orders.SIZE, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    at = stopped.call(_MMAP, 0, _PAGE, _READ | _EXECUTE, _PRIVATE_ANONYMOUS, -1, 0)
    for begin, end in _left_out(stopped.place):
        stopped.call(_MADVISE, begin, end - begin, _DO_FORK)
    stopped.write(base, orders.beginning(base, LISTENER))
    for number, thread in enumerate(stopped.threads):
        stopped.write(orders.context_at(base, number), orders.context(thread.again, thread.extended))
    stopped.write(at, orders.code(base))
    stances = [_stance(stopped, thread) for thread in stopped.threads]
    names = {int(name): os.readlink(stopped.place / "fd" / name) for name in os.listdir(stopped.place / "fd")}
    events = [(number, _flags(stopped.place, number)) for number, name in names.items() if name == _EVENTS]
    free = [number for number in range(3, _MOST_DESCRIPTORS) if number not in names]
    stopped.release(at, at + orders.REST_AT)
    return Server(ours, LISTENER, base, stances, events, free)


def _left_out(place: Path) -> list[tuple[int, int]]:
    """Returns where the memory begins and ends that QEMU wants no fork to have: the guest's, and the code for it."""
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
