"""A process that the supervisor keeps alive."""

from __future__ import annotations

import asyncio
import signal
from time import monotonic

import structlog

from martlet.serve.forkserver import Forked, Forkserver, Unforked

log = structlog.get_logger()

STOP_TIMEOUT = 15.0
QUICK_DEATH = 5.0
"""A process that died within this many seconds is started anew with a growing delay."""
LONGEST_DELAY = 5.0


class Child:
    """One process of the platform.

    Attributes:
        starting: it is being forked, and ``pid`` not yet what it will be.
    """

    def __init__(self, forkserver: Forkserver, role: str, number: int) -> None:
        self.name = role if role == "control" else f"lane-{number}"
        self._forkserver = forkserver
        self._role, self._number = role, number
        self._process: Forked | None = None
        self.starting = False

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started for the first time."""
        return None if self._process is None else self._process.pid

    async def keep(self) -> None:
        """Starts the process, and again whenever it ends; runs until cancelled."""
        delay = 0.0
        while True:
            await asyncio.sleep(delay)
            began = monotonic()
            try:
                code = await self._life()
                log.error("process_ended", name=self.name, code=code)
            except Unforked as error:
                log.error("process_not_started", name=self.name, error=str(error))
            quick = monotonic() - began < QUICK_DEATH
            delay = min(max(0.1, delay * 2), LONGEST_DELAY) if quick else 0.0

    async def _life(self) -> int:
        self.starting = True
        try:
            self._process = await self._forkserver.fork(self._role, self._number)
        finally:
            self.starting = False
        return await self._process.wait()

    async def stop(self, grace: float) -> None:
        """Asks the process to end, and kills it where it does not for `STOP_TIMEOUT` and ``grace`` seconds."""
        if self._process is None:
            return
        self._process.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT + grace)
        except TimeoutError:
            log.error("process_killed", name=self.name)
            self._process.send(signal.SIGKILL)
            await self._process.wait()
