"""What the engine is asked for: the container of a cell, confined before its first instruction."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from martlet.drivers.docker.engine import resources
from martlet.model import Network
from martlet.sandbox import root as places
from martlet.sandbox.bundle import CODE, DOOR, Frame
from martlet.sandbox.cgroups import Limits

_CELL_SCRATCH = 1024 * 1024
_HOST_NAME = "martlet"
_TMPFS = "nosuid,nodev"
_OPEN_FILES, _PROCESSES = 65_536, 32_768
"""More than any function gets: a cell lowers its limits when it gets code, and cannot raise them."""


def document(
    *,
    image: str,
    frame: Frame,
    shown: Mapping[str, str],
    network: Network,
    identity: int,
    limits: Limits,
    door: Path,
    code: Path,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Returns what ``POST /containers/create`` takes.

    Args:
        image: what the engine calls the root of the frame.
        frame: what is bound in it, and started.
        shown: what is shown besides, by where it is seen.
        network: ``host``, or nothing but loopback: a way out is made afterwards.
        identity: the user and group id.
        limits: until the cell becomes an instance.
        door: the folder that it shares with the lane.
        code: the folder in which its code will be mounted.
        labels: by which the container is found again.
    """
    host = network is Network.HOST
    return {
        "Image": image,
        "Entrypoint": [frame.command[0]],
        "Cmd": [*frame.command[1:]],
        "Env": [*frame.environment],
        "User": f"{identity}:{identity}",
        "WorkingDir": "/",
        "Labels": dict(labels),
        **({} if host else {"Hostname": _HOST_NAME}),
        "HostConfig": {
            "NetworkMode": "host" if host else "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            # Nobody else is in its network: a server may listen where it always does.
            "Sysctls": {} if host else {"net.ipv4.ip_unprivileged_port_start": "0"},
            "Tmpfs": {
                places.SCRATCH: f"rw,exec,{_TMPFS},mode=1777,size={_CELL_SCRATCH}",
                # podman would make these of its own, open to everybody and without a bound.
                "/run": f"ro,{_TMPFS},size=4k",
                "/var/tmp": f"ro,{_TMPFS},size=4k",  # noqa: S108
            },
            "Mounts": [
                *(_bind(place, folder) for place, folder in {**frame.binds, **shown}.items()),
                _bind(CODE, str(code)),
                _bind(DOOR, str(door), writable=True),
            ],
            "Ulimits": [
                _most("nofile", resource.RLIMIT_NOFILE, _OPEN_FILES),
                _most("nproc", resource.RLIMIT_NPROC, _PROCESSES),
            ],
            **resources(limits),
        },
    }


def _bind(target: str, source: str, *, writable: bool = False) -> dict[str, Any]:
    options = {"Propagation": "rprivate"}
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": not writable,
        "BindOptions": options,
    }


def _most(name: str, kind: int, wanted: int) -> dict[str, Any]:
    """Returns a limit as far as this process may set it; an engine may know no more than that."""
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    return {"Name": name, "Soft": value, "Hard": value}
