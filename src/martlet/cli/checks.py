"""What holds on this host of what the sandbox promises, and what there is of what else Martlet uses."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from martlet.drivers import egress, engines, microvm
from martlet.drivers.driver import Guarantee
from martlet.drivers.process import ProcessDriver
from martlet.drivers.resolvers import Resolvers
from martlet.microvm import kvm, qemu
from martlet.microvm.firecracker import template
from martlet.runtimes import Catalogue
from martlet.runtimes.discovery import remedy
from martlet.settings import Settings

MINIMUM_KERNEL = (5, 12)
MINIMUM_FILES = 4096
MINIMUM_DISK = 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One feature of the host.

    Attributes:
        feature: its name.
        held: whether it is there.
        found: what exactly was found.
        meaning: what it is for, or what follows where it is missing.
        remedy: what to do where it is missing.
        needed: whether functions cannot run as they should without it.
    """

    feature: str
    held: bool
    found: str
    meaning: str
    remedy: str
    needed: bool = False


def check_sandbox(settings: Settings) -> list[Guarantee]:
    """Returns what sandboxes promise and what of it holds on this host."""
    system = settings.system
    driver = ProcessDriver(0, system.function_storage_path / "packages", settings.run_directory)
    found = [*driver.probe(), egress.guarantee(system.egress_subnet), *_containers(settings)]
    return found if system.disable_microvm else [*found, microvm.guarantee()]


def _containers(settings: Settings) -> tuple[Guarantee, ...]:
    """Returns what is found of the engines, by having each start a container until one does."""
    run = settings.run_directory
    found = engines.choose(settings.system, run, Catalogue.of(settings.system)).guarantees
    for folder in (run / "lane-0", run):  # made to try it in; a platform that runs has something in its own
        with suppress(OSError):
            folder.rmdir()
    return tuple(replace(each, needed=False) for each in found)  # functions can do without


def check_host(settings: Settings) -> Iterator[Check]:
    """Yields every other check, for a platform with these settings."""
    yield _kernel()
    yield _python()
    yield _resolvers()
    yield _overlay()
    if not settings.system.disable_microvm:
        yield from _machine_monitors()
    yield _open_files()
    yield _disk(settings.system.function_storage_path)
    yield _port(settings.system.host, settings.system.api_gateway_port)


def check_runtimes(settings: Settings) -> Iterator[Check]:
    """Yields each runtime that this host has, or could have."""
    catalogue = Catalogue.of(settings.system)
    for runtime in catalogue.available():
        lacks = " and ".join(program.key for program in runtime.lacks)
        yield Check(
            feature=runtime.name,
            held=not lacks,
            found=f"{runtime.description.title} {runtime.version}".strip()
            + (f", without {lacks}" if lacks else ""),
            meaning=f"it runs functions, and cannot build those that take {lacks}"
            if lacks
            else "it runs functions",
            remedy=_installed_by(remedy(runtime.lacks)),
        )
    for absent in catalogue.absent():
        yield Check(absent.name, False, "missing", absent.reason, _installed_by(absent.remedy))


def _installed_by(way: str | None) -> str:
    return "see docs/runtimes.md" if way is None else f"to install it: {way}"


def _kernel() -> Check:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    return Check(
        "Linux kernel",
        numbers >= MINIMUM_KERNEL,
        release,
        "private roots are made with mount_setattr, which came with 5.12",
        "upgrade the kernel",
        needed=True,
    )


def _python() -> Check:
    return Check(
        "Python",
        sys.version_info >= (3, 11),
        platform.python_version(),
        "the platform and Python functions run on it",
        "install Python 3.11 or newer",
        needed=True,
    )


def _resolvers() -> Check:
    addresses = Resolvers.find().addresses
    return Check(
        "resolvers",
        bool(addresses),
        ", ".join(map(str, addresses)) or "none but on loopback, or by IPv6",
        "functions with `network: egress` look up names there",
        "name one in /etc/resolv.conf that has an IPv4 address outside of 127.0.0.0/8",
    )


def _overlay() -> Check:
    held = any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines())
    return Check(
        "overlayfs",
        held,
        "in the kernel" if held else "not loaded",
        "layers of container images; the process rung does without",
        "modprobe overlay",
    )


def _machine_monitors() -> Iterator[Check]:
    """Yields what decides how fast microVMs are, and by what they are run."""
    program = shutil.which(qemu.PROGRAM)
    if program is None:  # without which there are none at all
        return
    found = kvm.find(program)
    meaning = "microVMs run on the processor; without it one is emulated, some ten times slower"
    yield Check("KVM", found.held, found.found, meaning, found.remedy)
    firecracker = template.finding()
    meaning = "microVMs are run by it, and not by QEMU, where KVM runs guests"
    if not found.held:
        meaning += ", as here it does not: that comes first"
    yield Check("Firecracker", firecracker.held, firecracker.found, meaning, firecracker.remedy)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Check(
        "open files",
        hard == resource.RLIM_INFINITY or hard >= MINIMUM_FILES,
        f"{soft}, at most {hard}",
        "each connection and each instance takes some",
        f"raise the hard limit to {MINIMUM_FILES} or more (ulimit -Hn; LimitNOFILE= of a systemd unit)",
    )


def _disk(data: Path) -> Check:
    place = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    return Check(
        "data folder",
        writable and free >= MINIMUM_DISK,
        f"{data}: {free // 1024**2} MiB free" if writable else f"{data} cannot be written to",
        "packages, the database and logs lie there",
        "make room there, or choose another folder (system.function_storage_path)",
        needed=not writable,
    )


def _port(host: str, port: int) -> Check:
    def bind() -> None:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass

    try:
        bind()
        held, found = True, f"{host}:{port} is free"
    except OSError as error:
        held, found = False, f"{host}:{port}: {error.strerror}"
    return Check(
        "port",
        held,
        found,
        "the platform listens there",
        "stop what uses it (Martlet itself?), or choose another",
    )
