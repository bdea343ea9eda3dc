"""How a cell becomes an instance: it gets the code of a revision, from this machine or from the bucket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from martlet.drivers.driver import (
    Connecting,
    DriverError,
    Forking,
    Handle,
    Loaded,
    LoadFailed,
    NotStarted,
    Unforkable,
)
from martlet.errors import NoCapacity, Unavailable
from martlet.http.conversation import Conversation
from martlet.model import Revision
from martlet.node.packages import PackageCache
from martlet.storage.blobs import BlobError

if TYPE_CHECKING:
    from martlet.node.node import Node

log = structlog.get_logger()


class Specialised(NamedTuple):
    """A cell that has its code: what became of it, and the connection over which it came, if that goes on."""

    handle: Handle
    loaded: Loaded
    conversation: Conversation | None = None


class Starter:
    """See the module.

    Args:
        node: whose cells.
        packages: where the code of revisions is.
    """

    def __init__(self, node: Node, packages: PackageCache) -> None:
        self._node = node
        self._packages = packages
        # Found out once: to ask whether something keeps a protocol takes longer than much of a cold start.
        self._connecting = {name: each for name, each in node.drivers.items() if isinstance(each, Connecting)}

    async def specialise(
        self, revision: Revision, *, template: bool = False, again: bool = True
    ) -> Specialised:
        """Makes a cell an instance of a revision, or a template of it.

        Args:
            revision: of a function.
            template: whether it is to be a template.
            again: whether to take another cell where the first one ends, which need not be the fault of the code.

        Raises:
            LoadFailed: the user's code does not load.
            Unforkable: it is not for a template.
            NoCapacity: the host refuses another sandbox.
            Unavailable: its code is not on this machine, and out of reach.
        """
        node = self._node
        code, dependencies = await self._packages_of(revision)
        try:
            cell = await node.stocks.take(revision.config)
        except LoadFailed:
            raise
        except DriverError as error:
            raise _no_capacity(error) from error
        driver = node.driver_of(cell)
        node.read_log(cell, revision)
        try:
            what = cell, revision, code, dependencies, node.settings.cold_start_timeout
            if template:
                if not isinstance(driver, Forking):
                    raise Unforkable(f"the driver {driver.name} does not fork")
                return Specialised(cell, await driver.prepare_template(*what))
            connecting = self._connecting.get(cell.driver)
            if connecting is not None:
                return Specialised(cell, *await connecting.specialise_connected(*what))
            return Specialised(cell, await driver.specialise(*what))
        except LoadFailed:
            await asyncio.wait([node.spawn(node.destroy(cell))])  # then all that it has printed is kept
            raise
        except BaseException as error:
            ending = node.spawn(node.destroy(cell))
            if isinstance(error, NotStarted):
                raise _no_capacity(error) from error
            if isinstance(error, DriverError) and not isinstance(error, Unforkable):
                log.error("instance_not_started", revision=revision.id, error=str(error))
                if again:
                    return await self.specialise(revision, template=template, again=False)
                await asyncio.wait([ending])  # as above
                raise LoadFailed("", "the sandbox ended before the code was loaded") from error
            raise

    async def _packages_of(self, revision: Revision) -> tuple[Path, Path | None]:
        ensure = self._packages.ensure
        try:
            code = await ensure(revision.code)
            return code, await ensure(revision.dependencies) if revision.dependencies else None
        except (BlobError, OSError) as error:  # OSError: the disk here is full
            log.error("package_not_fetched", revision=revision.id, error=str(error))
            raise Unavailable(f"the code of {revision.id} cannot be fetched right now; try again") from error


def _no_capacity(error: DriverError) -> NoCapacity:
    log.error("cell_not_started", error=str(error))
    return NoCapacity("a sandbox could not be started; the platform's log says why")
