"""What the engine is asked for: the container of a cell, confined before its first instruction."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import martlet.sandbox
from martlet.drivers.docker.engine import resources
from martlet.drivers.roots import Root
from martlet.drivers.startup import Startup
from martlet.model import Network
from martlet.runtimes.runtime import RUNTIME, RUNTIMES, SHIPPED
from martlet.sandbox import root as places
from martlet.sandbox.bundle import CODE, DOOR, SANDBOX
from martlet.sandbox.cgroups import Limits
from martlet.sandbox.contained import Plan

CELL_SCRATCH = 1024 * 1024
HOST_NAME = "martlet"
_BOOTSTRAP = """
import json, sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import contained
sys.path.remove(sys.argv[1])
contained.main(json.loads(sys.argv[2]))
"""
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": places.SCRATCH, "LANG": "C.UTF-8"}
_TMPFS = "nosuid,nodev"
_OPEN_FILES, _PROCESSES = 65_536, 32_768
"""More than any function gets: a cell lowers its limits when it gets code, and cannot raise them."""
_RESOLVERS, _RESOLVERS_OF_HOST = "/etc/resolv.conf", "/etc/resolv.conf.host"


def document(
    *,
    image: str,
    root: Root,
    startup: Startup,
    network: Network,
    identity: int,
    limits: Limits,
    door: Path,
    code: Path,
    labels: Mapping[str, str],
    filtered: bool,
) -> dict[str, Any]:
    """Returns what ``POST /containers/create`` takes.

    Args:
        image: the root's, by id.
        root: what is bound in it.
        startup: how the runtime is started.
        network: ``host``, or nothing but loopback: a way out is made afterwards.
        identity: the user and group id.
        limits: until the cell becomes an instance.
        door: the folder that it shares with the lane.
        code: the folder in which its code will be mounted.
        labels: by which the container is found again.
        filtered: whether its system calls are filtered by more than the engine's own filter.
    """
    module_folder = RUNTIME if startup.program is None else f"{RUNTIMES}/{startup.module_folder.name}"
    plan = Plan(startup.module, module_folder, startup.program, DOOR, filtered)
    interpreter = str(root.runtime.interpreter)
    command = [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, SANDBOX, json.dumps(asdict(plan))]
    host = network is Network.HOST
    return {
        "Image": image,
        "Entrypoint": command[:1],
        "Cmd": command[1:],
        "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
        "User": f"{identity}:{identity}",
        "WorkingDir": "/",
        "Labels": dict(labels),
        **({} if host else {"Hostname": HOST_NAME}),
        "HostConfig": {
            "NetworkMode": "host" if host else "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "Tmpfs": {
                places.SCRATCH: f"rw,exec,{_TMPFS},mode=1777,size={CELL_SCRATCH}",
                # podman would make these of its own, open to everybody and without a bound.
                "/run": f"ro,{_TMPFS},size=4k",
                "/var/tmp": f"ro,{_TMPFS},size=4k",  # noqa: S108
            },
            "Mounts": [
                *(_bind(place, folder) for place, folder in _binds(root, network).items()),
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


def _binds(root: Root, network: Network) -> dict[str, str]:
    """Returns what is shown besides code and door, by where it is seen; engines would name hosts and resolvers too."""
    resolvers = _RESOLVERS_OF_HOST if network is Network.HOST else _RESOLVERS
    if not Path(f"{root.path}{resolvers}").exists():
        resolvers = _RESOLVERS
    return {
        **root.binds,
        RUNTIME: str(root.runtime.folder),
        RUNTIMES: str(SHIPPED),
        f"{SANDBOX}/martlet/sandbox": str(Path(martlet.sandbox.__file__).parent),
        _RESOLVERS: f"{root.path}{resolvers}",
        "/etc/hosts": f"{root.path}/etc/hosts",
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
