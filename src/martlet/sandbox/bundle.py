"""The bundle of a container: what its engine is told to start, in the words of the OCI runtime specification 1.0.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CODE, DOOR, SANDBOX = "/.code", "/.martlet", "/.sandbox"
"""Where a container sees the folder that its code is mounted in, that of its socket, and the program it starts as."""
ENVIRONMENT = ("PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "LANG=C.UTF-8")
PAUSE = "pause"
"""The program, in the folder of the sandbox, that does nothing but wait."""
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")
_SEEN = ["rbind", "ro", "nosuid", "nodev"]
_OWN = ["rbind", "rw", "nosuid", "nodev"]
_NO_SYS = {
    "destination": "/sys",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["ro", "nosuid", "nodev", "noexec", "mode=0555"],
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What all containers of a keeper have in common.

    Attributes:
        root: the folder that is ``/``.
        binds: folders of the host that are shown, by where they are seen.
        command: what it starts.
        profile: of AppArmor; empty: the host has none for containers.
        environment: of the command.
        process_label: the context of SELinux that they run in; empty: the host has none for containers.
        file_label: that of what the engine mounts; empty: likewise.
    """

    root: str
    binds: Mapping[str, str]
    command: Sequence[str]
    profile: str
    environment: Sequence[str] = ENVIRONMENT
    process_label: str = ""
    file_label: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """What is one container's.

    Attributes:
        identity: its user and group.
        namespace: the path of its network namespace; empty: a new one; None: that of the host.
        binds: what is shown read-only, by where it is seen.
        writable: what may be written to, likewise.
        group: its cgroup, for an engine that makes it; empty: it stays where it is.
    """

    identity: int
    namespace: str | None
    binds: Mapping[str, str]
    writable: Mapping[str, str]
    group: str


def make(frame: Frame, own: Own, *, own_kernel: bool = False) -> dict[str, Any]:
    """Returns the ``config.json`` of a container without any power: every engine makes the same of it.

    ``own_kernel``: whether the kernel is gVisor's, which shows a ``/sys`` that nobody has asked for.
    """
    process = {
        "user": {"uid": own.identity, "gid": own.identity},
        "args": list(frame.command),
        "env": list(frame.environment),
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": {name: [] for name in _SETS},
    }
    if frame.profile:
        process["apparmorProfile"] = frame.profile
    if frame.process_label:
        process["selinuxLabel"] = frame.process_label
    namespaces = [{"type": name} for name in ("pid", "ipc", "uts", "mount")]
    if own.namespace is not None:
        namespaces.append({"type": "network"} | ({"path": own.namespace} if own.namespace else {}))
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        # What is mounted later for one container reaches it, and nothing that it mounts reaches anybody.
        "rootfsPropagation": "rslave",
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if frame.file_label:
        linux["mountLabel"] = frame.file_label
    if own.group:
        linux["cgroupsPath"] = own.group
    if own.namespace is not None:
        # Nobody else is in its network: a server may listen where it always does.
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": frame.root, "readonly": True},
        "hostname": "martlet",
        "mounts": [*_mounts(frame, own), *([_NO_SYS] if own_kernel else [])],
        "linux": linux,
    }


def _mounts(frame: Frame, own: Own) -> list[dict[str, Any]]:
    proc = {
        "destination": "/proc",
        "type": "proc",
        "source": "proc",
        "options": ["nosuid", "noexec", "nodev"],
    }
    places = {place: (folder, _OWN) for place, folder in own.writable.items()}
    places |= {place: (folder, _SEEN) for place, folder in {**frame.binds, **own.binds}.items()}
    # A folder before what is inside of it. Nothing is a device here but what the keeper has put into /dev.
    ordered = sorted(places.items(), key=lambda entry: entry[0].count("/"))
    binds = [_bind(place, folder, options) for place, (folder, options) in ordered]
    return [proc, *binds]


def _bind(place: str, folder: str, options: list[str]) -> dict[str, Any]:
    if place == "/dev":
        # Nothing can be made there anyway. For gVisor, devices of what is read-only would be so too.
        options = ["rbind", "rw", "nosuid", "noexec"]
    elif place == CODE:
        options = [*options, "rslave"]
    return {"destination": place, "type": "bind", "source": folder, "options": options}
