"""Builds of other machines: what they say, how they end, and how they are cancelled. The store and the blobs know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from time import monotonic, time

import structlog

from martlet.builder.build_logs import BuildLogs
from martlet.builder.builds import CANCELLED
from martlet.builder.lines import BuildLine
from martlet.builder.running import Outcome
from martlet.control.builders import Builders
from martlet.control.queue import Queue
from martlet.errors import BuildFailed, Conflict, MartletError, NotFound, Unavailable, every_error
from martlet.model import Build, BuildState
from martlet.storage.blobs import BlobError
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import StoreError

log = structlog.get_logger()

LOOK = 0.3
"""Seconds between two looks at how a build goes."""
PATIENCE = 5
"""Looks after which it is said that nobody builds it, and why."""
CANCEL_TIMEOUT = 30.0
"""Seconds that a machine may take to end a build that is cancelled."""


class Elsewhere:
    """See the module.

    Args:
        registry: where builds are.
        view: where nodes are known.
        logs: what builds have said.
        builders: the machines that build.
        queue: the deploys that have not ended.
        announce: lets the lanes of this machine see the store at a revision.
        revision: returns the revision of the store.
    """

    def __init__(
        self,
        registry: Registry,
        view: RegistryView,
        logs: BuildLogs,
        builders: Builders,
        queue: Queue,
        announce: Callable[[int], Awaitable[None]],
        revision: Callable[[], Awaitable[int]],
    ) -> None:
        self._registry = registry
        self._view = view
        self._logs = logs
        self._builders = builders
        self._queue = queue
        self._announce = announce
        self._revision = revision

    async def follow(self, build_id: str, seen: Iterable[BuildLine] = ()) -> AsyncIterator[BuildLine]:
        """Yields the lines of a build, and those to come until it has ended.

        Args:
            build_id: the build.
            seen: lines that are known.

        Raises:
            NotFound: there is no such build.
        """
        known = set(seen)  # each attempt begins with what the one before it has said
        attempt, part, why, looks = 0, 0, "", 0
        while True:
            build = await self._build(build_id)
            if build is not None and build.attempt != attempt:
                attempt, part = build.attempt, 0
            lines = None if build is None else await self._part(build, part)
            if lines is not None:
                for line in lines:
                    if line not in known:
                        known.add(line)
                        yield line
                part += 1
                continue
            if build is not None and build.finished is not None:
                for line in () if part else await self._lines(build):
                    yield line  # of an attempt before the last, which came to say nothing
                return
            before, why = why, await self._why_waiting(build_id)
            looks = looks + 1 if why == before else 0
            if why and looks == PATIENCE:
                yield BuildLine(time=time(), message=why)
            await asyncio.sleep(LOOK)

    async def outcome(self, build_id: str) -> Outcome:
        """Returns how a build has ended, once it has. Raises the error that it failed with."""
        while not await self._ended(build_id):
            await asyncio.sleep(LOOK)
        build = await self._registry.get_build(build_id)
        await self._announce(await self._revision())
        if build.state is BuildState.READY and build.revision is not None:
            return Outcome(build.revision, build.unchanged)
        if build.state is BuildState.CANCELLED:
            raise BuildFailed(CANCELLED, extra={"build": build.id})
        raise await self._error(build)

    async def cancel(self, build_id: str) -> Build:
        """Ends a build, wherever it is.

        Raises:
            Conflict: it has ended meanwhile.
            Unavailable: its machine has not said yet that it has ended.
        """
        while True:
            try:
                waiting, written = await self._registry.read_waiting(build_id)
            except NotFound:
                break
            try:
                if waiting.node in self._view.nodes:
                    cancelled = waiting.model_copy(update={"cancelled": True})
                    await self._registry.put_waiting(cancelled, expect_revision=written)
                else:
                    await self._queue.withdraw(waiting, written)
                    await self._registry.put_build(_cancelled(await self._registry.get_build(build_id)))
                break
            except Conflict:
                continue  # somebody has taken it up, or it has ended
        deadline = monotonic() + CANCEL_TIMEOUT
        while not await self._ended(build_id):
            if monotonic() > deadline:
                raise Unavailable(f"the build {build_id} is to end and has not yet: ask for it again")
            await asyncio.sleep(LOOK)
        build = await self._registry.get_build(build_id)
        if build.state is not BuildState.CANCELLED:
            raise Conflict(f"the build {build.id} is {build.state} and cannot be cancelled any more")
        return build

    async def _ended(self, build_id: str) -> bool:
        """Whether a build has ended, as far as the store can be asked. Raises `NotFound`."""
        build = await self._build(build_id)
        return build is not None and build.finished is not None

    async def _build(self, build_id: str) -> Build | None:
        """Returns a build; None where the store cannot be asked. Raises `NotFound`."""
        try:
            return await self._registry.get_build(build_id)
        except StoreError as error:
            log.warning("build_not_known", build=build_id, error=str(error))
            return None

    async def _part(self, build: Build, part: int) -> list[BuildLine] | None:
        try:
            return await self._logs.part(build, part)
        except BlobError as error:
            log.warning("build_log_out_of_reach", build=build.id, error=str(error))
            return None

    async def _lines(self, build: Build) -> list[BuildLine]:
        try:
            return await self._logs.lines(build)
        except BlobError as error:
            return [BuildLine(time=time(), message=f"what it said is out of reach: {error}")]

    async def _why_waiting(self, build_id: str) -> str:
        """Returns why nobody builds it; nothing where somebody does."""
        try:
            waiting, _ = await self._registry.read_waiting(build_id)
        except (NotFound, StoreError):
            return ""
        if waiting.node and waiting.node not in self._view.nodes:
            return f"the machine that built it ({waiting.node}) is gone; {self._builders.why_waiting(waiting.runtime)}"
        return "" if waiting.node else self._builders.why_waiting(waiting.runtime)

    async def _error(self, build: Build) -> MartletError:
        code = build.code or Unavailable.code
        kind = next((kind for kind in every_error() if kind.code == code), MartletError)
        lines = [line.message for line in await self._lines(build)]
        return kind(build.error or "", field=build.field, extra={"build": build.id, "log": lines})


def _cancelled(build: Build) -> Build:
    state = BuildState.CANCELLED
    ended = {"state": state, "phase": build.phase.after(state), "error": CANCELLED, "finished": time()}
    return build.model_copy(update=ended)
