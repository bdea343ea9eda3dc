"""This machine, as it tells the other nodes."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from time import time
from typing import Any

from martlet import __version__
from martlet.control.health import health_of
from martlet.model import ExecutionMode, Node, NodeLane, Role
from martlet.runtimes import Catalogue
from martlet.settings import Settings, SystemSettings

ID_FILE = "node-id"
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104


class Machine:
    """See the module.

    Args:
        settings: of the platform.
        sockets: the private sockets of the lanes here.
        catalogue: the runtimes here.

    Attributes:
        stopping: it is to take nothing from the others any more.
    """

    def __init__(self, settings: Settings, sockets: Sequence[Path], catalogue: Catalogue) -> None:
        system = settings.system
        host = socket.gethostname()
        runs = Role.NODE in system.roles
        self.stopping = False
        self._sockets = sockets
        self._fixed: dict[str, Any] = {
            "id": node_id(system.function_storage_path),
            "host": host,
            "address": _address(system, host) if Role.GATEWAY in system.roles else None,
            # Machines of versions that know no builders would not understand one that has that role.
            "roles": tuple(role for role in system.roles if role is not Role.BUILDER),
            "builds": tuple(sorted(each.name for each in catalogue.available() if each.builds))
            if Role.BUILDER in system.roles
            else None,
            "peer": system.peer_address,
            "version": __version__,
            "rungs": tuple(sorted(modes_of(system))) if runs else (),
            "runtimes": tuple(sorted(each.name for each in catalogue.available())) if runs else (),
            "cores": os.cpu_count() or 1,
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "started": time(),
        }

    async def node(self) -> Node:
        """Returns what it is and holds now."""
        health = await health_of(self._sockets)
        living = [said for said in health.values() if said is not None]
        lanes = [
            NodeLane(name=name, state="away")
            if said is None
            else NodeLane(
                name=name,
                state="ready",
                instances=said["instances"],
                capacity=said["capacity"],
                cells=said["cells"],
            )
            for name, said in health.items()
        ]
        warm: dict[str, tuple[int, int]] = {}
        calls, asked = Counter[str](), Counter[str]()
        forwarded: dict[str, Counter[str]] = {}
        for said in living:
            calls.update(said["calls"])
            asked.update(said["asked"])
            for revision, sent in said["forwarded"].items():
                forwarded.setdefault(revision, Counter()).update(sent)
        for revision, (held, free) in chain.from_iterable(said["warm"].items() for said in living):
            before = warm.get(revision, (0, 0))
            warm[revision] = before[0] + held, before[1] + free
        return Node(
            **self._fixed,
            lanes=tuple(lanes),
            load=round(os.getloadavg()[0] / self._fixed["cores"], 1),
            memory_free=self._fixed["memory"] - sum(said["memory"] for said in living),
            cpu_free=self._fixed["cores"] * 1000 - sum(said["cpu"] for said in living),
            warm=warm,
            stopping=self.stopping,
            calls=calls,
            forwarded=forwarded,
            asked=asked,
            divided=min((said["divided"] for said in living), default=0),
        )


def modes_of(system: SystemSettings) -> frozenset[ExecutionMode]:
    """Returns the rungs of this machine, once the settings are settled."""
    disabled = {
        ExecutionMode.CONTAINER: system.disable_container,
        ExecutionMode.MICROVM: system.disable_microvm,
    }
    return frozenset({ExecutionMode.PROCESS, *(mode for mode, without in disabled.items() if not without)})


def _address(system: SystemSettings, host: str) -> str:
    reached = host if system.host in EVERYWHERE else system.host
    return f"{f'[{reached}]' if ':' in reached else reached}:{system.api_gateway_port}"


def node_id(data: Path) -> str:
    """Returns the id that the data folder has had since its first start."""
    file, fresh = data / ID_FILE, data / f"{ID_FILE}.new"
    if not file.exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(secrets.token_hex(6))
        fresh.replace(file)
    return file.read_text()
