"""How many more instances and templates a lane takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from martlet.errors import NoCapacity
from martlet.model import ScalingAction

if TYPE_CHECKING:
    from martlet.node.node import Node


class Room:
    """See the module.

    Attributes:
        capacity: how many there may be in all.
        taken: how many there are, or are on their way. Pools and templates count themselves: to ask all of them for
            each start took a millisecond where a thousand functions were in use.
    """

    def __init__(self, node: Node, capacity: int) -> None:
        self._node = node
        self.capacity = capacity
        self.taken = 0

    @property
    def left(self) -> int:
        """How many more there may be; below 0 while more are wanted than there may be."""
        return self.capacity - self.taken

    def make(self) -> None:
        """Ends what has been idle longest where more are wanted than there may be. Raises `NoCapacity`."""
        if self.left >= 0:
            return
        idle = [
            (since, instance)
            for instance in self._node.instances.values()
            if not instance.dead
            and (since := instance.idle_since()) is not None
            and len(instance.pool.instances) > instance.pool.config.min_instances
        ]
        if not idle:
            raise NoCapacity(f"this lane runs {self.capacity} instances already (max_concurrent_functions)")
        instance = min(idle, key=lambda pair: pair[0])[1]
        instance.end()
        instance.pool.note(ScalingAction.END, "another function needed the room (max_concurrent_functions)")
