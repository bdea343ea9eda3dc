"""A machine that runs, of which others are forked: where the processor is emulated, and a start is mostly translation.

QEMU restores the saved machine once for a zygote, and its guest rehearses (`rehearsal`); then it stands still, and each
clone is a fork of the whole process (`capture`): the guest's memory, the devices, and all code that has been
translated, shared until it is written to. QEMU knows nothing of that.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

from martlet.microvm import qemu
from martlet.microvm.capture import capture
from martlet.microvm.control import CONTROL, LINKS, Nonsense
from martlet.microvm.execution import execute
from martlet.microvm.forerunner import written_by
from martlet.microvm.links import PortGone
from martlet.microvm.orders import Server
from martlet.microvm.qemu_machine import CHANNELS, QMP, TAP
from martlet.microvm.qmp import Qmp
from martlet.microvm.rehearsal import Example, Guest, rehearse
from martlet.sandbox import guest_link, syscalls, tracing
from martlet.sandbox.lifeline import die_with_parent
from martlet.sandbox.syscalls import Clone

LISTENER = 9
"""The descriptor that it is told by."""
_SECONDS = 10.0
_ROUNDS = 3
_PAUSE = 0.2
"""Seconds for which the guest then idles: to wake is one of the ways of a clone."""


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
    zygote, pid = os.getpid(), os.fork()
    if pid == 0:
        _become(command, lent, zygote)
    theirs.close()
    for _, other in pairs.values():
        other.close()
    try:
        example = _prepared({number: pair[0] for number, pair in pairs.items()}, state)
        server = capture(pid, _SECONDS, ours, LISTENER)
        if example is None:
            return server
        return server.foreseeing(written_by(server, example, _SECONDS))
    except (OSError, EOFError, Nonsense, PortGone, ValueError):
        traceback.print_exc()
        _end(pid)
        ours.close()
        return None
    finally:
        for end, _ in pairs.values():
            end.close()


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):  # who traced it may have heard already that it has ended
        os.kill(pid, signal.SIGKILL)
        while os.waitpid(-1, tracing.ALL)[0] != pid:
            pass  # threads that are traced end one by one


def _become(command: Sequence[str], lent: dict[int, int], zygote: int) -> None:
    """In the child: becomes QEMU, without a network."""
    try:
        die_with_parent()
        if os.getppid() != zygote:  # which has died before
            os._exit(1)
        syscalls.unshare(Clone.NETWORK)
        if qemu.has_tap(command):
            guest_link.make_alone()
            lent[TAP] = guest_link.attach()
        execute(list(command), lent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _prepared(ends: Mapping[int, socket.socket], state: int) -> Example | None:
    """Restores the machine, has its guest go the ways of a clone, and stops it."""
    os.lseek(state, 0, os.SEEK_SET)
    ends[QMP].settimeout(_SECONDS)
    qmp = Qmp(ends[QMP])
    qemu.restore(qmp, state)
    guest = Guest(ends[CHANNELS[CONTROL]].fileno(), ends[CHANNELS[LINKS[0]]].fileno(), _SECONDS)
    for _ in range(_ROUNDS):
        example = rehearse(guest)
        time.sleep(_PAUSE)
    qmp.execute("stop")
    return example
