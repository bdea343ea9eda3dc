"""A machine under QEMU, as a warden has it (`martlet.microvm.machines`). Standard library only."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from martlet.microvm import qemu
from martlet.microvm.control import CONTROL, LINKS, LOG
from martlet.microvm.machine import PLACE, STATE_FILE
from martlet.microvm.qmp import Qmp
from martlet.sandbox import guest_link

QMP, MEMORY, TAP = 10, 11, 13
CHANNELS = {name: 20 + number for number, name in enumerate((CONTROL, LOG, *LINKS))}
"""The descriptors of a monitor, which its command line names."""


class QemuMachine:
    """A clone in the sandbox of a warden.

    Args:
        patience: seconds that each answer may take.
        memory: a descriptor of the memory, which this closes.
    """

    def __init__(self, patience: float, memory: int) -> None:
        self._patience = patience
        pairs = {number: socket.socketpair() for number in (QMP, *CHANNELS.values())}
        self._ours = {number: pair[0] for number, pair in pairs.items()}
        self.lent = {number: pair[1].detach() for number, pair in pairs.items()} | {MEMORY: memory}
        self.address = guest_link.address_here()
        if self.address is not None:
            self.lent[TAP] = guest_link.attach()

    def enter(self) -> None:
        """Does nothing: QEMU has all that it needs."""

    def restore(self) -> dict[str, int]:
        """Has the machine go on. Returns the descriptors of its ports."""
        for lent in self.lent.values():
            os.close(lent)
        self._ours[QMP].settimeout(self._patience)
        self._qmp = Qmp(self._ours[QMP])  # which pauses where this is closed
        state = os.open(f"{PLACE}/{STATE_FILE}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            qemu.restore(self._qmp, state)
        finally:
            os.close(state)
        return {name: self._ours[number].detach() for name, number in CHANNELS.items()}

    def tell(self, environment: Mapping[str, str]) -> None:
        """Does nothing: the request that gives a cell its code goes to nobody else."""
