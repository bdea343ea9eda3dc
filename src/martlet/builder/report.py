"""Tells other machines how a build goes: what it says, and which step it is at."""

from __future__ import annotations

import asyncio

import structlog

from martlet.builder.build_logs import BuildLogs
from martlet.builder.running import RunningBuild
from martlet.storage.blobs import BlobError
from martlet.storage.store import GuardLost, StoreError

log = structlog.get_logger()

EVERY = 0.5
"""Seconds between two reports."""


class Report:
    """See the module.

    Args:
        running: the build.
        logs: where all machines read what it says.
    """

    def __init__(self, running: RunningBuild, logs: BuildLogs) -> None:
        self._running = running
        self._logs = logs
        self._parts = 0
        self._told = 0
        self._state = running.build.state
        self._telling = asyncio.Lock()

    async def keep(self) -> None:
        """Tells what is new, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.tell_lines()
            build = self._running.build
            if build.state is not self._state and build.finished is None:
                try:
                    await self._running.registry.put_build(build)
                    self._state = build.state
                except GuardLost:
                    return
                except StoreError as error:
                    log.warning("build_not_reported", build=build.id, error=str(error))

    async def tell_lines(self) -> None:
        """Tells what it has said since."""
        async with self._telling:
            fresh = self._running.lines[self._told :]
            if not fresh:
                return
            try:
                await self._logs.put(self._running.build, self._parts, fresh)
            except BlobError as error:
                log.warning("build_log_not_shipped", build=self._running.build.id, error=str(error))
                return
            self._parts += 1
            self._told += len(fresh)
