"""The lane's end of a zygote: has it fork cells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from martlet.drivers.parent import Parent
from martlet.model import Network

OnObserved = Callable[[str, int], None]
"""Called with the id of an instance and the descriptor on which its denied calls are heard; it takes that over."""


class Zygote(Parent):
    """One zygote and the cells it forked.

    Attributes:
        on_observed: see `OnObserved`; for a plan whose calls are observed.
    """

    program = "zygote"
    on_observed: OnObserved | None = None

    async def fork(self, cell: str, network: Network, identity: int, descriptors: Sequence[int]) -> int:
        """Forks a cell of this user that gets ``descriptors`` (listener, log, namespace of egress, cgroup doors).

        Returns:
            Its process id.

        Raises:
            DriverError: the kernel refused, or the zygote is gone.
        """
        return await self._start(cell, _fork_of(network, identity, urgent=False), descriptors)

    async def fork_urgently(
        self, cell: str, network: Network, identity: int, descriptors: Sequence[int]
    ) -> asyncio.Future[int | None]:
        """Asks for what `fork` does, and has the cell run before the zygote goes on, and says so.

        Returns:
            What `fork` would, once that is known.

        Raises:
            DriverError: the zygote is gone.
        """
        return await self._request(cell, _fork_of(network, identity, urgent=True), descriptors, begins=True)

    def _hear(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message:
            case {"event": "observed", "id": cell}:
                assert self.on_observed is not None
                self.on_observed(cell, descriptors[0])
            case _:
                super()._hear(message, descriptors)


def _fork_of(network: Network, identity: int, *, urgent: bool) -> dict[str, Any]:
    return {"op": "fork", "network": network, "identity": identity, "urgent": urgent}
