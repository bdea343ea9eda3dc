"""A machine under Firecracker, as a warden has it (`martlet.microvm.machines`). Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from martlet.microvm.control import VSOCK_PORTS
from martlet.microvm.execution import execute
from martlet.microvm.firecracker.errors import FirecrackerError
from martlet.microvm.firecracker.mmds import MetadataError
from martlet.microvm.firecracker.monitor import Monitor
from martlet.microvm.machine import PLACE, ROOT_FILE, SCRIPT_FILE, Fork
from martlet.sandbox import guest_link

API, VSOCK = "api.sock", "v.sock"
"""Where its sockets are, in the folder that Firecracker is started in."""
_SCRATCH = "/tmp"  # noqa: S108  (the sandbox's own)


def command(program: str) -> list[str]:
    """Returns the command line of Firecracker; all else it is told."""
    return [program, "--api-sock", API]


class FirecrackerMachine:
    """A clone in the sandbox of a warden; ``patience`` is what each answer may take, in seconds."""

    def __init__(self, patience: float) -> None:
        self.address = guest_link.address_here() or guest_link.make_alone()
        self._monitor = Monitor(f"{_SCRATCH}/{API}", f"{_SCRATCH}/{VSOCK}", patience)

    def start(self, command: Sequence[str], fork: Fork) -> dict[str, int]:
        """Has the machine go on. Returns the descriptors of its ports; raises OSError."""
        fork(lambda: _become(list(command)))
        with open(f"{PLACE}/{SCRIPT_FILE}") as file:
            script = json.load(file)
        try:
            self._monitor.play(script)
            return {name: self._monitor.connect(port).detach() for name, port in VSOCK_PORTS.items()}
        except FirecrackerError as error:
            raise OSError(str(error)) from None

    def tell(self, environment: Mapping[str, str]) -> str:
        """Puts a function's variables where the guest reads them. Returns the token for that; raises OSError."""
        try:
            return self._monitor.tell(environment)
        except (FirecrackerError, MetadataError) as error:
            raise OSError(str(error)) from None


def _become(command: list[str]) -> NoReturn:
    """Becomes Firecracker where the paths of the saved machine lead; it opens by itself what it needs."""
    os.chdir(_SCRATCH)
    os.symlink(f"{PLACE}/{ROOT_FILE}", ROOT_FILE)
    execute(command, {})
