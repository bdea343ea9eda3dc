"""What this machine has of what Firecracker takes, in sentences that a person can act on.

That ``/dev/kvm`` opens does not mean that a guest boots: only one that has booted shows that.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROGRAM = "firecracker"
KVM = Path("/dev/kvm")
_KVM_GET_API_VERSION, _KVM_API_VERSION = 0xAE00, 12
_MACHINES = ("x86_64", "aarch64")
_VERSION = re.compile(r"(?:Firecracker|Jailer) v([0-9]+)\.([0-9]+)\.([0-9]+)")
_PATIENCE_SECONDS = 5.0
_RELEASES = "https://github.com/firecracker-microvm/firecracker/releases"


class Version(NamedTuple):
    """A release."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


OLDEST, NEXT_MAJOR = Version(1, 7, 0), Version(2, 0, 0)
RENAMES_TAPS = Version(1, 12, 0)
"""The first that gives clones another tap (`NetworkOverride`)."""
MOVES_VSOCK = Version(1, 16, 0)
"""The first that gives clones another vsock (`VsockOverride`); before, each clone needs a chroot of its own."""
_DEAF = Version(1, 16, 0)
_SUPPORTED = f"{OLDEST} or newer, below {NEXT_MAJOR}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that Firecracker takes.

    Attributes:
        what: its name.
        held: whether it is there and of use.
        found: what exactly was found.
        remedy: a sentence about what to do; empty where nothing is.
    """

    what: str
    held: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was found; the version is None where it does not say it."""

    path: Path
    version: Version | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found."""

    firecracker: Program | None
    jailer: Program | None
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether a microVM may be tried."""
        return all(each.held for each in self.findings)

    def sentences(self) -> list[str]:
        """Returns what there is to do."""
        return [
            f"{each.what}: {each.found}. What to do: {each.remedy}." for each in self.findings if each.remedy
        ]


def probe(path: str | None = None, kvm: Path = KVM, machine: str | None = None) -> Probe:
    """Looks for Firecracker, its jailer and KVM.

    Args:
        path: folders of programs, as in ``PATH``, which is the default.
        kvm: the device.
        machine: the kind of processor; by default this machine's.
    """
    firecracker, jailer = _find(PROGRAM, path), _find("jailer", path)
    findings = [
        _processor(machine or platform.machine()),
        _program(PROGRAM, firecracker),
        _program("jailer", jailer),
        of_device(kvm),
    ]
    if (
        firecracker
        and jailer
        and firecracker.version
        and jailer.version
        and firecracker.version != jailer.version
    ):
        findings.append(
            Finding(
                "firecracker and jailer",
                False,
                f"Firecracker is of {firecracker.version} and the jailer of {jailer.version}",
                f"install both from one release ({_RELEASES})",
            )
        )
    return Probe(firecracker, jailer, tuple(findings))


def _find(name: str, path: str | None) -> Program | None:
    at = shutil.which(name, path=path)
    if at is None:
        return None
    try:
        said = subprocess.run(
            [at, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        match = _VERSION.match(said.stdout.decode(errors="replace"))
    except (OSError, subprocess.TimeoutExpired):
        match = None
    return Program(Path(at), Version(*map(int, match.groups())) if match else None)


def _processor(machine: str) -> Finding:
    if machine in _MACHINES:
        return Finding("processor", True, machine)
    return Finding(
        "processor", False, machine, f"Firecracker runs on {' and '.join(_MACHINES)} only: use such a machine"
    )


def _program(name: str, program: Program | None) -> Finding:
    install = (
        f"take {name}-v<version>-{platform.machine()} out of the archive of a release ({_RELEASES}), of {_SUPPORTED}, "
        f"and install it: install -m 755 {name}-v* /usr/local/bin/{name}"
    )
    if program is None:
        return Finding(name, False, "it is not on the PATH", install)
    if program.version is None:
        return Finding(name, False, f"{program.path} does not say its version", install)
    found = f"{program.path}, {program.version}"
    if not OLDEST <= program.version < NEXT_MAJOR:
        return Finding(name, False, f"{found}, is not supported", install)
    if program.version == _DEAF:
        return Finding(
            name, True, f"{found}, in which the vsock of clones may stay silent", "install 1.16.1 or newer"
        )
    return Finding(name, True, found)


def of_device(device: Path) -> Finding:
    """Returns whether the device of KVM is there and opens."""
    try:
        opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Finding(
            "KVM",
            False,
            f"there is no {device}",
            "load the kernel's module (modprobe kvm_intel or kvm_amd); where that fails, turn on virtualization in the "
            "firmware, or nested virtualization for this virtual machine; a container must be given the device",
        )
    except PermissionError:
        return Finding(
            "KVM",
            False,
            f"this user may not open {device}",
            "run Martlet as root, or add its user to the device's group and log in anew: usermod -aG kvm <user>",
        )
    except OSError as error:
        return Finding(
            "KVM", False, f"{device} does not open: {error.strerror}", "see what the kernel says: dmesg"
        )
    try:
        version = fcntl.ioctl(opened, _KVM_GET_API_VERSION)
    except OSError:
        version = -1
    finally:
        os.close(opened)
    if version != _KVM_API_VERSION:
        return Finding("KVM", False, f"{device} is not the kernel's KVM", "remove what is in its place")
    return Finding("KVM", True, f"{device} opens; whether a guest boots is known only when one has")
