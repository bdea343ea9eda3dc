"""What the host holds for a cell: a directory with socket and log, a cgroup, a user id, a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from martlet.drivers.driver import DriverError
from martlet.drivers.held import Held
from martlet.drivers.parent import Parent
from martlet.drivers.place import Place
from martlet.drivers.template import Template
from martlet.sandbox.cgroups import Group, Limits, Usage

_END_SECONDS = 5.0
_EMPTY_SECONDS = 30.0
"""What the end of killed processes may take: of hundreds, on a machine that has much else to do."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
"""Seconds between two attempts to remove a cgroup, each twice as long as the one before: hundreds of processes take a
while to end, and to tell all of them so again takes time that the lane's requests wait for."""


class Cell(Held):
    """A cell that a parent has started, or the instance it became. Its ``identity`` is the template's in a fork.

    Attributes:
        parent: what started it.
        template: the means to fork from it, where it is a template.
        group: its cgroup; None on a host without (relaxed).
        namespace: a descriptor of its network namespace, where that was made ahead, until it needs it no more.
        forking: done when its parent has said what ``pid`` is, where it was handed out before that.
        failure: why its sandbox could not be made.
        starved: whether a kernel of its own has ended it for its memory.
        urgent: whether it is handed out before it has answered.
        place: what was made ahead of what the host holds for it.
    """

    def __init__(
        self,
        driver: str,
        id: str,  # noqa: A002
        runtime: str,
        directory: Path,
        group: Group | None,
        identity: int,
        image: str | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(driver, id, runtime, directory, identity, image)
        self.place = place
        if place is not None:
            self.conversation = place.conversation
        self.group = group
        self.namespace: int | None = None
        self.parent: Parent | Template | None = None
        self.template: Template | None = None
        self.forking: asyncio.Future[int | None] | None = None
        self.failure: str | None = None
        self.starved = self.urgent = False
        self._limits = None if place is None else place.limits

    def limit(self, limits: Limits) -> None:
        """Sets the limits of its cgroup, where they are not what they were. Raises `DriverError`."""
        if self.group is None or limits == self._limits:
            return
        try:
            self.group.limit(limits, self._limits)
        except OSError as error:
            raise DriverError(f"the limits of the cell {self.id} cannot be set: {error}") from error
        self._limits = limits

    def usage(self) -> Usage | None:
        """Returns what it uses, as long as its cgroup is there; None on a host without cgroups."""
        usage = None if self.group is None else self.group.usage()
        return usage and usage._replace(oom_kills=usage.oom_kills + self.starved)

    async def remove(self) -> None:
        """Kills the cell, waits until it is gone and removes all of it.

        Raises:
            DriverError: its processes did not end; the message says where they are.
        """
        self.let_go_of_namespace()
        if self.place is not None:
            self.place.close()
        if self.parent is not None and await self.parent.signal(self.id, signal.SIGKILL):
            await asyncio.wait([self.ended], timeout=_END_SECONDS)
        await remove_remains(self.directory, self.group)

    def let_go_of_namespace(self) -> None:
        """Closes the lane's descriptor of it: from now on it lives and ends with the cell."""
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[int]]:
        """Makes the socket too, which it lends before the other `belongings`."""
        with self.place or Place(self.directory, self.group, listens=True) as place:
            yield place.lend(self.namespace)

    @contextlib.contextmanager
    def belongings(self) -> Iterator[list[int]]:
        """Makes the log and the cgroup; lends the descriptors that go to its parent: log, namespace, doors."""
        with Place(self.directory, self.group, listens=False) as place:
            yield place.lend(self.namespace)


async def remove_remains(directory: Path, group: Group | None) -> None:
    """Removes what there may be of a cell whose parent is gone.

    Raises:
        DriverError: its processes did not end; the message says where they are.
    """
    if group is not None:
        await empty(group)
    shutil.rmtree(directory, ignore_errors=True)


async def empty(group: Group) -> None:
    """Kills what is in a cgroup and below, and removes it.

    Raises:
        DriverError: its processes did not end.
    """
    pause = _FIRST_PAUSE
    try:
        async with asyncio.timeout(_EMPTY_SECONDS):
            while not group.remove():
                group.kill()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
    except TimeoutError:
        raise DriverError(f"processes in the cgroup {group} do not end") from None
