"""User ids for sandboxes: one each, and none given again while its holder may live."""

from __future__ import annotations

from typing import Self

from martlet.drivers.driver import DriverError

FIRST = 2_000_000_000
PER_LANE = 65_536
"""Lane 0 starts at `FIRST`, the next one `PER_LANE` further. With 256 lanes the last id is 2,016,777,215: it
fits in 31 bits, and is above what distributions, directories and container engines give away. The first half of them
is for processes, the third quarter for containers, and the last for microVMs."""


def first_of(lane: int) -> int:
    """Returns the first id of a lane."""
    return FIRST + lane * PER_LANE


class Identities:
    """Ids of one lane: ``count`` of them, from its ``first`` on. An id that came back is given again last."""

    def __init__(self, lane: int, count: int = PER_LANE // 2, first: int = 0) -> None:
        self._first = first_of(lane) + first
        self._count = count
        self._next = 0
        self._held: set[int] = set()

    @classmethod
    def of_containers(cls, lane: int) -> Self:
        """Returns those of a lane that are for its containers."""
        return cls(lane, PER_LANE // 4, first=PER_LANE // 2)

    @classmethod
    def of_microvms(cls, lane: int) -> Self:
        """Returns those of a lane that are for its microVMs."""
        return cls(lane, PER_LANE // 4, first=PER_LANE * 3 // 4)

    def take(self) -> int:
        """Returns an id that nobody holds.

        Raises:
            DriverError: all are held.
        """
        for _ in range(self._count):
            identity = self._first + self._next
            self._next = (self._next + 1) % self._count
            if identity not in self._held:
                self._held.add(identity)
                return identity
        raise DriverError(f"all {self._count} user ids of this lane are in use")

    def hold(self, identity: int) -> None:
        """Notes that somebody has an id already, from an earlier life of the lane.

        Raises:
            DriverError: it is none of this lane, or held by another.
        """
        if identity in self._held or not 0 <= identity - self._first < self._count:
            raise DriverError(f"{identity} is no free user id of this lane")
        self._held.add(identity)

    def give_back(self, identity: int) -> None:
        """Lets the id be given again; its holder must be gone."""
        self._held.discard(identity)
