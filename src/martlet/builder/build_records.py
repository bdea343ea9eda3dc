"""The builds that are remembered, as the registry has them and this machine knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from time import time

from martlet.builder.build_logs import BuildLogs
from martlet.errors import NotFound, Unavailable
from martlet.model import Build, BuildState
from martlet.package.staging import remove_tree
from martlet.storage.registry import Registry
from martlet.storage.store import StoreError

BUILDS_KEPT = 200
"""Finished builds that are remembered, with their logs."""
INTERRUPTED = "interrupted; deploy again"


class BuildRecords:
    """See the module.

    Args:
        registry: where builds are remembered.
        folder: where each has a folder with its log.
        node: the id of this machine.
        logs: what builds of all machines have said; None: there are no others.
    """

    def __init__(self, registry: Registry, folder: Path, node: str, logs: BuildLogs | None) -> None:
        self._registry = registry
        self._folder = folder
        self._node = node
        self._logs = logs
        self._known: dict[str, Build] = {}
        self._last: dict[str, Build] = {}

    async def open(self, resumed: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Reads what is remembered; builds that an earlier life left unfinished have failed.

        Args:
            resumed: returns those that somebody goes on with; asked after the builds, so that none that has just begun
                is taken for one that was left.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        builds = sorted(await self._registry.list_builds(), key=lambda build: build.started)
        waiting = await resumed()
        for build in builds:
            if build.finished is None and build.id not in waiting:
                try:
                    build = await self.read(build.id)  # another machine may have ended it meanwhile
                except NotFound:
                    continue
                if build.finished is None:
                    build = await self.end(self._registry, build, INTERRUPTED)
            self._known[build.id] = self._last[build.function] = build
        for folder in self._folder.iterdir():
            known = self._known.get(folder.name)
            here = known is not None and known.node in (None, self._node)
            remove_tree(folder / "work" if here else folder)

    def get(self, build_id: str) -> Build | None:
        """Returns a build as it is known here."""
        return self._known.get(build_id)

    def last(self, function: str) -> Build | None:
        """Returns the build of a function that has ended last, as far as is known here."""
        return self._last.get(function)

    async def read(self, build_id: str) -> Build:
        """Returns a build as all machines know it. Raises `NotFound`."""
        try:
            return await self._registry.get_build(build_id)
        except NotFound:
            raise NotFound(f"there is no build {build_id!r}") from None

    async def all(self) -> dict[str, Build]:
        """Returns the builds of all machines by id."""
        return {build.id: build for build in await self._registry.list_builds()}

    def begun(self, build: Build) -> None:
        """A build runs here."""
        self._known[build.id] = build

    def ended(self, build: Build) -> None:
        """A build that ran here has ended."""
        self._known[build.id] = self._last[build.function] = build

    def forget(self, build_id: str) -> None:
        """A build that ran here runs elsewhere."""
        del self._known[build_id]

    async def learn(self, build_id: str) -> None:
        """Reads what has become of a build of another machine, as far as that can be known now."""
        with suppress(StoreError, NotFound):
            build = await self._registry.get_build(build_id)
            self._known[build_id] = build
            if build.finished is not None:
                self._last[build.function] = build

    async def end(
        self, registry: Registry, build: Build, error: str, state: BuildState = BuildState.FAILED
    ) -> Build:
        """Writes down, for all machines, that a build which nobody runs has ended so. Raises `StoreError`."""
        ended = {
            "state": state,
            "phase": build.phase.after(state),
            "error": error,
            "code": Unavailable.code,
            "finished": time(),
        }
        build = build.model_copy(update=ended)
        await registry.put_build(build)
        self._known[build.id] = build
        return build

    async def prune(self, running: Collection[str]) -> None:
        """Forgets the oldest, with their logs, but for those that run here."""
        finished = [build for build in self._known if build not in running]
        for build_id in finished[: max(0, len(self._known) - BUILDS_KEPT)]:
            build = self._known.pop(build_id)
            if self._last.get(build.function) == build:
                del self._last[build.function]
            with suppress(NotFound):  # another machine has done it
                await self._registry.delete_build(build_id)
            if self._logs is not None:
                await self._logs.delete(build)
            await asyncio.to_thread(remove_tree, self._folder / build_id)
