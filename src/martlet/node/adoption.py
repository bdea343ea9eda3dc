"""How instances outlive their lane: written down when they come to be, taken over by the lane's next life.

    run/lane-N/<id>/record.json     how to find the instance, and what it is an instance of

An instance may still run a request of the lane that was lost. It is taken over when it answers for its health. Until
then it is expected for a while: calls wait for it as for one that starts, and then nobody counts on it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Self

import orjson
import structlog

from martlet.drivers.contract import check_health
from martlet.drivers.driver import DriverError, Handle, Loaded
from martlet.http.fetch import FetchError
from martlet.model import Revision
from martlet.node.instance import Instance
from martlet.scheduling.placement import Placement
from martlet.storage.registry import RegistryView

if TYPE_CHECKING:
    from martlet.node.node import Node
    from martlet.node.pool import Pool

log = structlog.get_logger()

RECORD = "record.json"
RECORD_DELAY = 0.05
"""Seconds from the start of an instance until it is noted down for a next life of the lane: its first request does not
wait for a file, and a lane that is killed sooner loses a start that took less."""
PATIENCE = 0.5
"""Seconds that a lane waits for its instances before it takes requests; those that are idle answer in some ms."""
EXPECTED_SECONDS = 3.0
"""Seconds that calls wait for an instance rather than start another: on a busy machine an idle one may take as long."""


@dataclass(frozen=True, slots=True)
class Record:
    """An instance as the lane's next life can find it.

    Attributes:
        handle: where it is.
        revision: what it runs.
        loaded: what became of its code.
        start_seconds: what its start took.
        created: seconds since the epoch.
    """

    handle: Handle
    revision: Revision
    loaded: Loaded
    start_seconds: float
    created: float

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """Returns the record of an instance."""
        revision = instance.pool.revision
        return cls(instance.handle, revision, instance.loaded, instance.start_seconds, instance.created)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Returns the record in an instance's directory; None where there is none that this version understands."""
        try:
            document: dict[str, Any] = orjson.loads((directory / RECORD).read_bytes())
            return cls(
                Handle.from_json(document["handle"]),
                Revision.model_validate(document["revision"], extra="ignore"),
                Loaded(**document["loaded"]),
                float(document["start_seconds"]),
                float(document["created"]),
            )
        except (FileNotFoundError, LookupError, TypeError, ValueError):
            return None

    def write(self) -> None:
        """Writes it into the instance's directory, all of it or nothing. Raises OSError."""
        # Each start is written down: what paths, files and copies of Python's own would add is most of it.
        document = {
            "handle": self.handle,
            "revision": orjson.Fragment(self.revision.model_dump_json()),
            "loaded": self.loaded,
            "start_seconds": self.start_seconds,
            "created": self.created,
        }
        place = f"{os.path.dirname(self.handle.socket)}/{RECORD}"
        with open(f"{place}.new", "wb") as new:
            new.write(orjson.dumps(document))
        os.rename(f"{place}.new", place)


class Expected:
    """An instance that is yet to answer, counted as one that starts until it has, or for `EXPECTED_SECONDS`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pool.starting += 1
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            EXPECTED_SECONDS, self.end
        )

    def end(self) -> None:
        """It is no longer expected, whether it has come or not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._pool.starting -= 1
            self._pool.node.allowance.changed()


class Adoption:
    """Takes over what lives of an earlier life of the lane, and removes the rest.

    Args:
        node: who gets the instances.
        view: says which revisions are current.
        directories: where each cell of the lane has a directory.
    """

    def __init__(self, node: Node, view: RegistryView, directories: Path) -> None:
        self._node = node
        self._view = view
        self._directories = directories

    async def run(self) -> None:
        """Returns once every idle instance of an earlier life is in its pool, and what shall not live has ended."""
        recovered = []
        lost = []
        for directory in self._directories.glob(f"{self._node.lane}-*"):
            record = Record.read(directory)
            if record is not None and await self._recover(record):
                recovered.append(record)
            else:
                lost.append((directory, record))
        for driver in self._node.drivers.values():
            await driver.sweep()
        for directory, record in lost:
            if record is not None and record.handle.driver in self._node.drivers:
                await self._node.destroy(record.handle)
            shutil.rmtree(directory, ignore_errors=True)
        joining = [self._node.spawn(self._take_over(record)) for record in recovered]
        if joining:
            await asyncio.wait(joining, timeout=PATIENCE)
            log.info("instances_recovered", count=len(recovered), lost=len(lost))

    async def note_down(self, instance: Instance) -> None:
        """Writes down an instance that lives on, for the next life of the lane, which finds it by its process."""
        await asyncio.sleep(RECORD_DELAY)
        try:
            await self._node.identify(instance)
        except DriverError:  # it is gone
            return
        if instance.handle.id in self._node.instances and not instance.dead:
            try:
                Record.of(instance).write()
            except OSError as error:
                log.warning("instance_not_recorded", instance=instance.handle.id, error=str(error))

    async def _recover(self, record: Record) -> bool:
        driver = self._node.drivers.get(record.handle.driver)
        if driver is None or not self._is_wanted(record):
            return False
        try:
            return await driver.recover(record.handle)
        except DriverError as error:
            log.warning("instance_not_recovered", instance=record.handle.id, error=str(error))
            return False

    async def _take_over(self, record: Record) -> None:
        handle, revision = record.handle, record.revision
        expected = Expected(self._node.pool(revision))
        try:
            self._node.read_log(handle, revision)
            await check_health(handle.socket, revision.config.timeout)
            covered = await self._is_covered(record)
            expected.end()
            if covered and await self._may_have(revision) and self._is_wanted(record):
                await self._join(record)
                return
        except (FetchError, DriverError, OSError) as error:
            log.warning("instance_not_recovered", instance=handle.id, error=str(error))
        finally:
            expected.end()
        await self._node.destroy(handle)

    def _is_wanted(self, record: Record) -> bool:
        """Whether its revision is what it was, and something points at it."""
        revision = record.revision
        known = self._view.revisions.get((revision.function, revision.number))
        return known == revision and self._node.pointers.is_current(revision)

    async def _is_covered(self, record: Record) -> bool:
        """Whether its packages have been there all the time; they are held from now on."""
        digests = filter(None, (record.revision.code, record.revision.dependencies))
        return all([await self._node.packages.hold(digest, since=record.created) for digest in digests])

    async def _may_have(self, revision: Revision) -> bool:
        """Whether the home lane has not given its place away meanwhile."""
        pool = self._node.pool(revision)
        placement = await pool.claim()
        if placement is Placement.GRANT:
            pool.starting -= 1  # it is there already
        return placement is not Placement.FULL

    async def _join(self, record: Record) -> None:
        pool = self._node.pool(record.revision)
        instance = Instance(pool, record.handle, record.loaded, record.start_seconds)
        instance.created = record.created
        instance.ready_at = monotonic() - (time() - record.created)
        self._node.instances[record.handle.id] = instance
        pool.join(instance)
        self._node.allowance.changed()
        await instance.open_slot()
