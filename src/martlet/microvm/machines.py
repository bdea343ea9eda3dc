"""What a warden has of a machine, whichever monitor runs it: chosen by what the template was saved by.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Protocol

from martlet.microvm.firecracker.machine import FirecrackerMachine
from martlet.microvm.forked_machine import ForkedMachine
from martlet.microvm.machine import PLACE, SCRIPT_FILE, Fork
from martlet.microvm.orders import Server
from martlet.microvm.qemu_machine import QemuMachine


class Machine(Protocol):
    """A clone of the template, before and after its monitor was started. It ends with the monitor."""

    @property
    def address(self) -> IPv4Address | None:
        """What the guest is by network; None where it has no device."""

    def start(self, command: Sequence[str], fork: Fork) -> dict[str, int]:
        """Has the machine go on where it was saved.

        Args:
            command: the monitor with its arguments, where one is started for it.
            fork: what that is started by.

        Returns:
            Descriptors of the guest's ports, by their names.

        Raises:
            OSError: the monitor has ended, refuses, or cannot be forked.
        """

    def tell(self, environment: Mapping[str, str]) -> str | None:
        """Puts a function's variables where its guest alone reads them.

        Returns:
            The token that the guest takes them by; None: they are to go with the request that gives it its code.

        Raises:
            OSError: the monitor has ended, or refuses.
        """


def takes_files() -> bool:
    """Whether the monitor of the template opens its files by itself, and to read only."""
    return os.path.exists(f"{PLACE}/{SCRIPT_FILE}")


def make(patience: float, kept: Mapping[str, int], server: Server | None) -> Machine:
    """Returns a clone of the template that is shown here.

    Args:
        patience: seconds that each answer of the monitor may take.
        kept: descriptors of the template's files by their names, where the monitor does not open them by itself.
        server: of clones, if there is one that lives.
    """
    if takes_files():
        return FirecrackerMachine(patience)
    if server is None:
        return QemuMachine(patience, kept)
    return ForkedMachine(patience, server, kept)
