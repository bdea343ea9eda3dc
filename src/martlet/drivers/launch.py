"""How the monitor of a microVM is started in its sandbox: by what its template was saved by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from martlet.errors import Invalid
from martlet.microvm import qemu, qemu_machine
from martlet.microvm.firecracker import machine as firecracker_machine
from martlet.microvm.firecracker import template as firecracker_template
from martlet.microvm.machine import MEMORY, PLACE, SCRIPT_FILE
from martlet.sandbox import guest_link

_FIRECRACKER = "/.firecracker"
"""Where the sandbox shows it, wherever it is on the host."""
_KVM = "kvm"
_FOR_EVERYBODY, _FOR_WARDENS = 0o666, 0o600
"""Modes of devices: a monitor has no power, and what it may do with one that it opens is for the kernel to say."""


@dataclass(frozen=True, slots=True)
class Launch:
    """See the module.

    Attributes:
        command: the monitor with its arguments, as the sandbox sees them.
        shown: files and folders of the host that the sandbox shows, by where they are seen.
        devices: those that it sees, with their modes (`zygote.Plan`).
    """

    command: list[str]
    shown: dict[str, str]
    devices: dict[str, int]


def of(template: Path, program: str, *, accelerated: bool, linked: bool) -> Launch:
    """Returns how clones of a template are started.

    Args:
        template: its folder.
        program: the path of QEMU, for one that it has saved.
        accelerated: whether that runs them under KVM.
        linked: whether they have a network device that leads somewhere.

    Raises:
        Invalid: Firecracker has saved it, and is gone.
    """
    shown = {PLACE: str(template)}
    if (template / SCRIPT_FILE).exists():
        found = firecracker_template.find()
        if found is None:
            raise Invalid("Firecracker is gone from this machine: install it again, or restart Martlet")
        command = firecracker_machine.command(_FIRECRACKER)
        devices = {_KVM: _FOR_EVERYBODY, guest_link.DEVICE: _FOR_EVERYBODY}
        return Launch(command, shown | {_FIRECRACKER: str(found.program)}, devices)
    command = qemu.command(
        program,
        memory=MEMORY,
        memory_path=f"/proc/self/fd/{qemu_machine.MEMORY}",
        root=f"/proc/self/fd/{qemu_machine.ROOT}",
        control=qemu_machine.QMP,
        channels=qemu_machine.CHANNELS,
        network=qemu.tap(qemu_machine.TAP) if linked else None,
        boot=None,
        accelerated=accelerated,
    )
    devices = {_KVM: _FOR_EVERYBODY} if accelerated else {}
    return Launch(command, shown, devices | ({guest_link.DEVICE: _FOR_WARDENS} if linked else {}))
