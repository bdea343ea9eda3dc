"""What the further instances of a pool are forked from, where their code takes long to load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from martlet.drivers.driver import DriverError, Forking, Handle, Loaded, Unforkable
from martlet.errors import MartletError
from martlet.scheduling.forking import is_template_worthwhile

if TYPE_CHECKING:
    from martlet.node.pool import Pool

log = structlog.get_logger()


class Template:
    """See the module. It is made when the second instance is wanted and ends after the last.

    Where the code must not be forked, or the template fails, the pool does without from then on: an instance that
    loads the code itself is always right.

    Attributes:
        pool: whose it is.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._node = pool.node
        self._making: asyncio.Task[None] | None = None
        self._handle: Handle | None = None
        self._mode = ""
        self._given_up = False

    async def fork(self) -> tuple[Handle, Loaded, None] | None:
        """Returns the sandbox of a new instance that has its code, or None where it has to load that itself."""
        if self._making is None and self._is_wanted():
            self._making = self._node.spawn(self._make())
            self._node.room.taken += 1
        if self._making is not None:
            await asyncio.wait([self._making])
        if self._handle is None or self._given_up:
            return None
        driver = self._node.driver_of(self._handle)
        assert isinstance(driver, Forking)
        config = self.pool.config
        try:
            fork = await driver.fork(self._handle, self._node.new_spec(config.runtime, config.network))
        except DriverError as error:
            self._give_up(str(error))
            return None
        self._node.read_log(fork, self.pool.revision)
        return fork, Loaded(self._mode, load_ms=0.0), None

    def lost(self) -> None:
        """It has ended by itself, and all that was forked from it."""
        self._give_up("it ended")
        self._end()

    def end_if_unused(self) -> None:
        """Ends it where no instance is there and none is on its way."""
        if not self.pool.held and all(one.pool is not self.pool for one in self._node.instances.values()):
            self._end()

    def _is_wanted(self) -> bool:
        loaded = max((one.loaded for one in self.pool.instances), key=lambda one: one.load_ms, default=None)
        return (
            loaded is not None
            and not self._given_up
            and self._node.room.left > 0
            and is_template_worthwhile(loaded.mode, loaded.load_ms / 1e3)
        )

    async def _make(self) -> None:
        try:
            self._handle, loaded, _ = await self._node.starter.specialise(self.pool.revision, template=True)
        except (DriverError, MartletError) as error:
            self._give_up(str(error), expected=isinstance(error, Unforkable))
        else:
            self._mode = loaded.mode
            self._node.templates[self._handle.id] = self
        finally:
            if self._handle is None:
                self._forget()

    def _give_up(self, why: str, *, expected: bool = False) -> None:
        if not self._given_up:
            self._given_up = True
            say = log.info if expected else log.warning
            say("instances_not_forked", revision=self.pool.revision.id, reason=why)

    def _end(self) -> None:
        handle, self._handle = self._handle, None
        self._forget()
        if handle is not None:
            del self._node.templates[handle.id]
            self._node.spawn(self._node.destroy(handle))

    def _forget(self) -> None:
        """Takes no place of the lane any more, as it does from when it is begun."""
        if self._making is not None:
            self._making = None
            self._node.room.taken -= 1
