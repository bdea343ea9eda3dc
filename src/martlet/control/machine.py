"""This machine, as it tells the other nodes."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path
from time import time
from typing import Any

from martlet import __version__
from martlet.config import Settings
from martlet.control.lanes import Lanes
from martlet.model import ExecutionMode, Node, NodeLane
from martlet.runtimes import Catalogue

ID_FILE = "node-id"
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104


class Machine:
    """See the module.

    Args:
        settings: of the platform.
        lanes: the lanes here.
        catalogue: the runtimes here.
        modes: the rungs here.
    """

    def __init__(
        self, settings: Settings, lanes: Lanes, catalogue: Catalogue, modes: Iterable[ExecutionMode]
    ) -> None:
        system = settings.system
        host = socket.gethostname()
        reached = host if system.host in EVERYWHERE else system.host
        self._lanes = lanes
        self._fixed: dict[str, Any] = {
            "id": _id(system.function_storage_path),
            "host": host,
            "address": f"{f'[{reached}]' if ':' in reached else reached}:{system.api_gateway_port}",
            "version": __version__,
            "rungs": tuple(sorted(modes)),
            "runtimes": tuple(sorted(runtime.name for runtime in catalogue.available())),
            "cores": os.cpu_count() or 1,
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "started": time(),
        }

    async def node(self) -> Node:
        """Returns what it is and holds now."""
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
            for name, said in (await self._lanes.health()).items()
        ]
        load = os.getloadavg()[0] / self._fixed["cores"]
        return Node(**self._fixed, lanes=tuple(lanes), load=round(load, 1))


def _id(data: Path) -> str:
    """Returns the id that the data folder has had since its first start."""
    file, fresh = data / ID_FILE, data / f"{ID_FILE}.new"
    if not file.exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(secrets.token_hex(6))
        fresh.replace(file)
    return file.read_text()
