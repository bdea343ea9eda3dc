"""QEMU as a machine monitor: its command line as data, and how a machine is saved and restored.

A machine has no PCI and no disk controller: only what virtio-mmio gives it, which is a drive to read from, channels,
and a network device where its function has a way out. A machine that is to be restored has the same devices as the one
that was saved, in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from martlet.microvm.qmp import Qmp, QmpError

PROGRAM = "qemu-system-x86_64"
FIRMWARE = "/usr/share/qemu/qboot.rom"
_EMULATED = "max,erms=off,la57=off,pku=off"
"""It lacks what a guest's kernel would use and an emulator is slow at: to fill and copy memory byte by byte, page
tables of five levels, and keys for pages, which change with each process."""
EMULATED_CPUS = 2
"""One for the agent and one for the cell: an emulated processor forgets what it knows of the memory of one process when
it turns to another. One thread emulates both."""
CODE_CACHE = 32
"""MiB that the emulator keeps of code that it has translated."""
_MACHINE = (
    "microvm,acpi=on,pit={timer},pic=on,rtc=on,isa-serial=off,x-option-roms=off,pcie=off,usb=off,"
    "memory-backend=memory"
)
"""The old timer (pit) runs also where nobody listens, and wakes an emulator 36 times a second: guests use another."""
_SHARED = [{"capability": "x-ignore-shared", "state": True}]
_STATE = "state"
_POLL_SECONDS = 0.01
_NO_LIMIT = 1 << 40


NOWHERE = "hubport,hubid=0"
"""What the network device of a machine leads to that will be saved."""


def tap(descriptor: int) -> str:
    """Returns what the network device of a machine leads to that has the tap of a descriptor."""
    return f"tap,fd={descriptor},vhost=off"


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine starts from, where it is not restored: files, and the words for its kernel."""

    kernel: str
    initrd: str
    words: Sequence[str]


def command(
    program: str,
    *,
    memory: int,
    memory_path: str,
    root: str,
    control: int,
    channels: Mapping[str, int],
    network: str | None,
    boot: Boot | None,
    accelerated: bool,
) -> list[str]:
    """Returns the command line of a machine.

    Args:
        program: the path of QEMU.
        memory: bytes of it.
        memory_path: the file that is its memory. A machine that boots writes to it; one that is restored does not.
        root: the file that it reads its root from.
        control: the descriptor of a stream, for `Qmp`.
        channels: descriptors of streams by the names that the guest finds its ports by.
        network: what its network device leads to, `NOWHERE` or a `tap`; None: it has none.
        boot: see `Boot`; None: it waits for `restore`.
        accelerated: whether it runs under KVM; otherwise the processor is emulated.
    """
    processor = ("kvm", "host") if accelerated else (f"tcg,thread=single,tb-size={CODE_CACHE}", _EMULATED)
    share = "on" if boot else "off"
    machine = _MACHINE.format(timer="on" if accelerated else "off")
    line = [
        *(program, "-M", machine, "-accel", processor[0], "-cpu", processor[1]),
        *("-m", f"{memory}b", "-smp", "1" if accelerated else f"{EMULATED_CPUS}"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-bios", FIRMWARE),
        *("-object", f"memory-backend-file,id=memory,mem-path={memory_path},size={memory},share={share}"),
        *("-drive", f"id=root,file={root},format=raw,if=none,readonly=on,file.locking=off"),
        *("-device", "virtio-blk-device,drive=root"),
        *("-device", f"virtio-serial-device,max_ports={len(channels) + 1}"),
    ]
    for name, descriptor in channels.items():
        line += ["-chardev", f"socket,id={name},fd={descriptor}"]
        line += ["-device", f"virtserialport,chardev={name},name={name}"]
    if network is not None:
        line += ["-netdev", f"{network},id=network", "-device", "virtio-net-device,netdev=network"]
    line += ["-chardev", f"socket,id=qmp,fd={control}", "-mon", "chardev=qmp,mode=control"]
    if boot is None:
        return [*line, "-incoming", "defer"]
    return [*line, "-kernel", boot.kernel, "-initrd", boot.initrd, "-append", " ".join(boot.words)]


def is_emulated(command: Sequence[str]) -> bool:
    """Whether a command line is that of a machine whose processor is emulated."""
    return any(word.startswith("tcg") for word in command)


def has_tap(command: Sequence[str]) -> bool:
    """Whether a command line is that of a machine with a tap."""
    return any(word.startswith("tap,") for word in command)


def save(qmp: Qmp, state: int, deadline: float) -> None:
    """Writes the state of a machine, all but its memory, and ends it.

    Args:
        qmp: the machine.
        state: the descriptor of the file.
        deadline: seconds that it may take.

    Raises:
        QmpError: it could not be saved.
    """
    qmp.execute("migrate-set-capabilities", capabilities=_SHARED)
    qmp.execute("migrate-set-parameters", **{"max-bandwidth": _NO_LIMIT})
    qmp.give(_STATE, state)
    qmp.execute("migrate", uri=f"fd:{_STATE}")
    ends = time.monotonic() + deadline
    while (status := qmp.execute("query-migrate").get("status")) != "completed":
        if status == "failed" or time.monotonic() > ends:
            raise QmpError(f"the machine could not be saved: {status}")
        time.sleep(_POLL_SECONDS)
    qmp.execute("quit")


def restore(qmp: Qmp, state: int) -> None:
    """Has a machine that waits go on from where it was saved; ``state`` is the descriptor of the file.

    Raises:
        QmpError: it cannot.
    """
    qmp.execute("migrate-set-capabilities", capabilities=_SHARED)
    qmp.give(_STATE, state)
    qmp.execute("migrate-incoming", uri=f"fd:{_STATE}")
    qmp.wait("RESUME")
