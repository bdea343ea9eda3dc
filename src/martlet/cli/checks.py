"""What this host has of what Martlet uses, found by trying it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from martlet.config import Settings
from martlet.drivers import egress, firewall
from martlet.drivers.driver import Driver
from martlet.drivers.process import ProcessDriver
from martlet.drivers.resolvers import Resolvers
from martlet.sandbox import landlock
from martlet.sandbox.cgroups import CONTROLLERS, GroupV2, find_top
from martlet.sandbox.syscalls import Clone, unshare

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


def check_host(settings: Settings) -> Iterator[Check]:
    """Yields every check, for a platform with these settings."""
    yield _kernel()
    yield _python()
    yield _identity()
    for namespace in Clone:
        yield _namespace(namespace)
    yield _egress(settings.system.egress_subnet)
    yield _resolvers()
    yield _cgroups()
    yield _overlay()
    yield _seccomp()
    yield _landlock()
    yield _uv()
    yield _open_files()
    yield _disk(settings.system.function_storage_path)
    yield _port(settings.system.host, settings.system.api_gateway_port)
    for driver in _drivers(settings):
        yield from _driver(driver)


def _drivers(settings: Settings) -> list[Driver]:
    return [ProcessDriver(0, settings.system.function_storage_path / "packages", settings.run_directory)]


def _driver(driver: Driver) -> Iterator[Check]:
    missing = driver.probe()
    if not missing:
        yield Check(
            f"{driver.name} rung", True, "a sandbox was made", "functions run isolated", "", needed=True
        )
    for each in missing:
        feature = f"{driver.name} rung: {each.feature}"
        yield Check(feature, False, "missing", each.consequence, each.remedy, needed=each.fatal)


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


def _identity() -> Check:
    root = os.geteuid() == 0
    return Check(
        "root",
        root,
        "root" if root else f"user id {os.geteuid()}",
        "namespaces, cgroups and a user id of its own for each instance",
        "run Martlet as root; it gives up what functions must not have",
    )


def _namespace(namespace: Clone) -> Check:
    wanted = namespace if os.geteuid() == 0 else namespace | Clone.USER
    held = _succeeds(lambda: unshare(wanted))
    return Check(
        f"{(namespace.name or '').lower()} namespace",
        held,
        "can be made" if held else "refused",
        "keeps what functions see apart from this machine and from each other",
        "run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
    )


def _egress(subnet: IPv4Network) -> Check:
    missing = egress.lacking(subnet)
    others = firewall.dropping() if missing is None else []
    found, remedy = "can be given", ""
    if missing is not None:
        found, remedy = f"lacks {missing.feature}", missing.remedy
    elif others:
        found = f"can be given, but may be dropped by the tables {', '.join(others)}"
        remedy = "unless they do already, let them pass what comes from and goes to the links m*"
    return Check(
        "egress",
        missing is None and not others,
        found,
        "functions with `network: egress` reach other machines, and neither this one nor each other",
        remedy,
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


def _cgroups() -> Check:
    top = find_top(Path("/proc/self/mountinfo").read_text())
    version = "none" if top is None else "v2" if isinstance(top, GroupV2) else "v1"
    held = top is not None and top.writable()
    return Check(
        "cgroups",
        held,
        f"{version}: {', '.join(CONTROLLERS)}" if held else f"{version}, not writable",
        "limits of memory, CPU and processes",
        "run as root; in a container, mount the cgroup filesystem writable",
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


def _seccomp() -> Check:
    held = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    return Check(
        "seccomp",
        held,
        "filters" if held else "missing",
        "lets functions make only harmless system calls",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    )


def _landlock() -> Check:
    version = landlock.version()
    return Check(
        "Landlock",
        version > 0,
        f"version {version}" if version > 0 else "off",
        "a second lock on files, behind the private root",
        "start the kernel with landlock in its lsm= list (5.13 or newer)",
    )


def _uv() -> Check:
    from uv import find_uv_bin

    try:
        found, held = find_uv_bin(), True
    except FileNotFoundError:
        found, held = "missing", False
    return Check("uv", held, found, "installs the dependencies of functions", "pip install uv")


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


def _succeeds(attempt: Callable[[], None]) -> bool:
    """Tries something irrevocable in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            attempt()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
