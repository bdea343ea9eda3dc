"""A machine that is forked from one that runs, as a warden has it (`machines`). Standard library only."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence

from martlet.microvm.machine import Fork
from martlet.microvm.orders import Orders, Server
from martlet.microvm.qemu_machine import CHANNELS, QMP, TAP, QemuMachine
from martlet.microvm.qmp import Qmp
from martlet.sandbox import guest_link

_OUTPUT, _ERRORS = 1, 2

Ends = dict[int, socket.socket]
"""What leads to a monitor, by the numbers of its descriptors."""


def forked(orders: Orders, fork: Callable[[Orders], int], tap: int | None = None) -> tuple[int, Ends]:
    """Has a monitor forked that has channels of its own, and stands still. Returns its id, and what leads to it.

    Args:
        orders: what it does before.
        fork: has it forked, by these.
        tap: the descriptor of its network, which this closes.

    Raises:
        OSError: it is not.
    """
    pairs = {number: socket.socketpair() for number in (QMP, *CHANNELS.values())}
    theirs = {number: pair[1].detach() for number, pair in pairs.items()}
    if tap is not None:
        theirs[TAP] = tap
    for number, descriptor in theirs.items():
        os.set_blocking(descriptor, False)  # as QEMU has made those that it had
        orders.put(descriptor, number)
    try:
        return fork(orders), {number: ends[0] for number, ends in pairs.items()}
    finally:
        for descriptor in theirs.values():
            os.close(descriptor)


def go_on(ends: Ends, patience: float) -> tuple[Qmp, dict[str, int]]:
    """Has a machine go on whose monitor was forked. Returns what commands it, and the descriptors of its ports.

    Raises:
        OSError: it does not, within ``patience`` seconds.
    """
    ends[QMP].settimeout(patience)
    qmp = Qmp(ends[QMP], greeted=True)
    qmp.execute("cont")
    return qmp, {name: ends[number].detach() for name, number in CHANNELS.items()}


class ForkedMachine:
    """A clone in the sandbox of a warden; where the server ends before that is there, it is restored instead.

    Args:
        patience: seconds that each answer may take.
        server: of clones, whose socket this closes.
        kept: descriptors of the template's files by their names, which this closes.
    """

    def __init__(self, patience: float, server: Server, kept: Mapping[str, int]) -> None:
        self._patience = patience
        self._kept = kept
        self._server = server
        self.address = guest_link.address_here()

    def start(self, command: Sequence[str], fork: Fork) -> dict[str, int]:
        """Has the machine go on. Returns the descriptors of its ports; raises OSError."""
        try:
            ends = self._fork(fork)
        except OSError:
            if self._server.lives:
                raise
            self._instead = QemuMachine(self._patience, self._kept)  # which ends where this is let go of
            return self._instead.start(command, fork)
        finally:
            self._server.socket.close()
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._qmp, ports = go_on(ends, self._patience)  # the first pauses where this is closed
        return ports

    def _fork(self, fork: Fork) -> Ends:
        orders = Orders(self._server, self._patience)
        for number in (_OUTPUT, _ERRORS):
            orders.put(number, number)
        tap = None if self.address is None else guest_link.attach()
        return forked(orders, fork.elsewhere, tap)[1]

    def tell(self, environment: Mapping[str, str]) -> None:
        """Does nothing: the request that gives a cell its code goes to nobody else."""
