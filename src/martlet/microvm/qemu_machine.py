"""A machine under QEMU, as a warden has it (`martlet.microvm.machines`). Standard library only."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from martlet.microvm import qemu
from martlet.microvm.control import CONTROL, LINKS, LOG
from martlet.microvm.execution import execute
from martlet.microvm.machine import MEMORY_FILE, ROOT_FILE, STATE_FILE, Fork
from martlet.microvm.qmp import Qmp
from martlet.sandbox import guest_link

QMP, MEMORY, ROOT, TAP = 10, 11, 12, 13
CHANNELS = {name: 20 + number for number, name in enumerate((CONTROL, LOG, *LINKS))}
"""The descriptors of a monitor, which its command line names."""


class QemuMachine:
    """A clone in the sandbox of a warden.

    Args:
        patience: seconds that each answer may take.
        kept: descriptors of the template's files by their names, which this closes.
    """

    def __init__(self, patience: float, kept: Mapping[str, int]) -> None:
        self._patience = patience
        pairs = {number: socket.socketpair() for number in (QMP, *CHANNELS.values())}
        self._ours = {number: pair[0] for number, pair in pairs.items()}
        self._lent = {number: pair[1].detach() for number, pair in pairs.items()}
        self._lent |= {MEMORY: kept[MEMORY_FILE], ROOT: kept[ROOT_FILE]}
        # Opened anew: other machines read it too.
        self._state = os.open(f"/proc/self/fd/{kept[STATE_FILE]}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(kept[STATE_FILE])
        self.address = guest_link.address_here()
        if self.address is not None:
            self._lent[TAP] = guest_link.attach()

    def start(self, command: Sequence[str], fork: Fork) -> dict[str, int]:
        """Has the machine go on. Returns the descriptors of its ports; raises OSError."""
        fork(lambda: execute(list(command), self._lent))
        for lent in self._lent.values():
            os.close(lent)
        self._ours[QMP].settimeout(self._patience)
        self._qmp = Qmp(self._ours[QMP])  # which pauses where this is closed
        try:
            qemu.restore(self._qmp, self._state)
        finally:
            os.close(self._state)
        return {name: self._ours[number].detach() for name, number in CHANNELS.items()}

    def tell(self, environment: Mapping[str, str]) -> None:
        """Does nothing: the request that gives a cell its code goes to nobody else."""
