"""The lane's end of a keeper: has it start containers and show them their code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from martlet.drivers.parent import Parent
from martlet.model import Network
from martlet.sandbox.bundle import Frame


class Keeper(Parent):
    """One keeper and the containers it started.

    Attributes:
        rootless: whether what its containers have as their root has been deleted.
    """

    program = "keeper"
    rootless = False

    async def launch(
        self,
        cell: str,
        network: Network,
        identity: int,
        door: Path,
        descriptors: Sequence[int],
        frame: Frame | None = None,
    ) -> int:
        """Starts a container of this user that gets ``descriptors`` (log, namespace of egress, cgroup doors).

        Args:
            cell: its id.
            network: what it reaches.
            identity: its user and group.
            door: the folder in which it makes its socket.
            descriptors: as said above.
            frame: what it is, where this keeper has no frame for all.

        Returns:
            The id of its first process.

        Raises:
            DriverError: the engine refused, or the keeper is gone.
        """
        given = None if frame is None else asdict(frame)
        message = {
            "op": "start",
            "network": network,
            "identity": identity,
            "door": str(door),
            "frame": given,
        }
        return await self._start(cell, message, descriptors)

    async def show(
        self, cell: str, *, code: str, dependencies: str | None, hostname: str, scratch: int
    ) -> None:
        """Shows a container its code, and gives it its name and the size of its scratch space in bytes.

        Raises:
            DriverError: the kernel refused, or the container or the keeper is gone.
        """
        given = {"code": code, "dependencies": dependencies, "hostname": hostname, "scratch": scratch}
        await self._ask(cell, {"op": "show", **given})

    def _hear(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message:
            case {"event": "rootless"}:
                self.rootless = True
            case {"event": "shown", "id": cell}:
                self._settle(cell, None)
            case _:
                super()._hear(message, descriptors)
