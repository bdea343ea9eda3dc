"""A machine that is forked from one that runs, as a warden has it (`machines`). Standard library only."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from martlet.microvm.machine import Fork
from martlet.microvm.orders import Orders, Server
from martlet.microvm.qemu_machine import CHANNELS, QMP, TAP, QemuMachine
from martlet.microvm.qmp import Qmp
from martlet.sandbox import guest_link

_OUTPUT, _ERRORS = 1, 2


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
        ends[QMP].settimeout(self._patience)
        self._qmp = Qmp(ends[QMP], greeted=True)  # which pauses where this is closed
        self._qmp.execute("cont")
        return {name: ends[number].detach() for name, number in CHANNELS.items()}

    def _fork(self, fork: Fork) -> dict[int, socket.socket]:
        """Has a monitor forked. Returns what leads to it, by the numbers of its descriptors."""
        orders = Orders(self._server, self._patience)
        pairs = {number: socket.socketpair() for number in (QMP, *CHANNELS.values())}
        theirs = {number: pair[1].detach() for number, pair in pairs.items()}
        if self.address is not None:
            theirs[TAP] = guest_link.attach()
        for number, descriptor in theirs.items():
            os.set_blocking(descriptor, False)  # as QEMU has made those that it had
            orders.put(descriptor, number)
        for number in (_OUTPUT, _ERRORS):
            orders.put(number, number)
        try:
            fork.elsewhere(orders)
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)
        return {number: ends[0] for number, ends in pairs.items()}

    def tell(self, environment: Mapping[str, str]) -> None:
        """Does nothing: the request that gives a cell its code goes to nobody else."""
