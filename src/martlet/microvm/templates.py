"""Templates: machines that were started once for a runtime, made warm, and saved, to be restored in milliseconds.

A template is kept under a digest of all that decides what it is: the kernel, the root, the runtime, Martlet's own part
of the guest, the monitor and its command line. Whatever of it changes, it is another template, and made
anew; and so is one that was damaged.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from martlet.errors import Invalid
from martlet.images.store import Images
from martlet.microvm import kvm, qemu, vmlinux
from martlet.microvm.base import Base, base_of
from martlet.microvm.booting import ACCELERATED_SECONDS, CHANNELS, NotStarted, booted, words
from martlet.microvm.firecracker import template as firecracker_template
from martlet.microvm.firecracker.template import Firecracker
from martlet.microvm.guest import build_root, parts_of
from martlet.microvm.kernel import Kernel, debian_kernel
from martlet.microvm.machine import MEMORY, ROOT_FILE
from martlet.microvm.store import Store
from martlet.runtimes import Runtime
from martlet.sandbox.inside import Task

_VMLINUX = "vmlinux"

Say = Callable[[str], None]
Describe = Callable[[Runtime], Task]
"""Returns what the agent is to do for a runtime whose programs have the paths that they have in the guest."""


class Templates:
    """See the module. All methods may wait for long.

    Args:
        folder: where they are kept, and what they are made from.
        say: is told how it goes where something is made, line by line.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self._store = Store(folder, say)
        self._images = Images(folder / "images")
        self._say = say
        self._versions: dict[tuple[str, bool], str] = {}
        self._without_firecracker = False

    def of(self, runtime: Runtime, describe: Describe, *, linked: bool = False) -> Path:
        """Returns the folder of the template for a runtime; makes it where there is none, or none as it was made.

        Args:
            runtime: it.
            describe: see `Describe`.
            linked: whether its machines have a network device.

        Raises:
            Invalid: it cannot be made; the message says what to install.
            Unavailable: the disk is full, or the mirror of packages is out of reach.
            OSError: the machine did not start.
        """
        name, version = _name_of(runtime, linked=linked), self._versions.get((runtime.name, linked))
        found = None if version is None else self._store.find(name, version)
        return found or self._make(runtime, describe, linked=linked)

    def accelerated(self) -> bool:
        """Whether machines run under KVM. Raises `Invalid` where there is no QEMU."""
        return kvm.find(monitor()).held

    def _make(self, runtime: Runtime, describe: Describe, *, linked: bool) -> Path:
        program, accelerated = monitor(), self.accelerated()
        firecracker = self._firecracker() if accelerated else None
        kernel = debian_kernel(self._store, self._say)
        unpacked = None
        if firecracker is not None:
            try:
                unpacked = self._unpacked(kernel)
            except Invalid as error:
                self._say(f"going on without Firecracker: {error.detail}")
                firecracker = None
        base = base_of(self._images, runtime, self._say)
        task = describe(base.runtime)
        name, network = _name_of(runtime, linked=linked), qemu.NOWHERE if linked else None

        def build(work: Path) -> None:
            self._say(f"starting a microVM for {name}, to be saved")
            build_root(base, work, task, work / ROOT_FILE)
            if firecracker is None or unpacked is None:
                _boot(program, kernel, work, network, accelerated=accelerated)
            else:
                _boot_by(firecracker, unpacked, kernel.initrd, work)
            self._say(f"saved the microVM for {name}")

        version = digest(program, firecracker, kernel, base, task, network, accelerated=accelerated)
        try:
            found = self._store.get(name, version, build)
        except NotStarted as error:
            if not accelerated:
                raise
            self._say(f"going on without {'KVM' if firecracker is None else 'Firecracker'}: {error}")
            if firecracker is None:
                kvm.refute(program, f"a guest for {runtime.name}: {error}")
            self._without_firecracker = True
            return self._make(runtime, describe, linked=linked)
        self._versions[runtime.name, linked] = version
        return found

    def _firecracker(self) -> Firecracker | None:
        return None if self._without_firecracker else firecracker_template.find()

    def _unpacked(self, kernel: Kernel) -> Path:
        def build(folder: Path) -> None:
            (folder / _VMLINUX).write_bytes(vmlinux.unpack(kernel.image.read_bytes()))

        return self._store.get(_VMLINUX, kernel.version, build) / _VMLINUX


def _name_of(runtime: Runtime, *, linked: bool) -> str:
    return f"{runtime.name}+network" if linked else runtime.name


def monitor() -> str:
    """Returns the path of QEMU. Raises `Invalid` where it is not on this machine."""
    program = shutil.which(qemu.PROGRAM)
    if program is None or not Path(qemu.FIRMWARE).is_file():
        raise Invalid(
            f"execution_mode: microvm takes the program {qemu.PROGRAM} (apt-get install qemu-system-x86)",
            field="config.execution_mode",
        )
    return program


def digest(
    program: str,
    firecracker: Firecracker | None,
    kernel: Kernel,
    base: Base,
    task: Task,
    network: str | None,
    *,
    accelerated: bool,
) -> str:
    """Returns that of all that decides what a template is.

    Args:
        program: the path of QEMU.
        firecracker: what it is saved by in place of QEMU, if that is so.
        kernel: of the guest.
        base: what its root is made of.
        task: what its agent is to do.
        network: as for `qemu.command`.
        accelerated: whether it runs under KVM.
    """
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    line = qemu.command(
        "",
        memory=MEMORY,
        memory_path="",
        root="",
        control=0,
        channels=dict.fromkeys(CHANNELS, 0),
        network=network,
        boot=None,
        accelerated=accelerated,
    )
    told = repr(words(accelerated=accelerated))
    texts: tuple[str, ...] = (version, repr(line), told, kernel.version, base.digest, repr(task))
    if firecracker is not None:
        texts = (*texts, f"firecracker {firecracker.version}")
    if accelerated:  # what is saved has the registers of this processor
        texts = (*texts, _processor())
    whole = hashlib.sha256("\0".join(texts).encode())
    for path in parts_of(base.runtime):
        whole.update(f"\0{path.name}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _boot(program: str, kernel: Kernel, work: Path, network: str | None, *, accelerated: bool) -> None:
    """Starts a machine, and saves it once its agent says that the runtime is warm."""
    with booted(program, kernel, work / ROOT_FILE, work, network, accelerated=accelerated) as machine:
        machine.save()


def _boot_by(firecracker: Firecracker, kernel: Path, initrd: Path, work: Path) -> None:
    """Does what `_boot` does, by Firecracker."""
    told = words(accelerated=True)
    try:
        firecracker_template.make(firecracker.program, kernel, initrd, told, work, ACCELERATED_SECONDS)
    except OSError as error:
        raise NotStarted(f"the microVM did not start: {error}") from error


def _processor() -> str:
    """Returns what this machine's processor is, and what it can do."""
    wanted = ("model name", "microcode", "flags")
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))
