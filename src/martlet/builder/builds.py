"""Builds: what is being deployed now, what was, and what they said."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time

import structlog

from martlet.errors import Conflict, MartletError, NotFound, Unavailable
from martlet.model import Build, BuildPhase, BuildState, Frozen
from martlet.package.staging import remove_tree
from martlet.storage.blobs import BlobError
from martlet.storage.registry import Registry
from martlet.storage.store import StoreError

log = structlog.get_logger()

BUILDS_KEPT = 200
"""Finished builds that are remembered, with their logs."""
INTERRUPTED = "interrupted; deploy again"
CANCELLED = "it was cancelled"
LOOK = 1.0
"""Seconds between two looks at whether a build of another machine has ended."""


class BuildLine(Frozen):
    """One line of a build's log."""

    time: float
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a deploy ended well: the revision that serves, and whether it did so before."""

    revision: int
    unchanged: bool = False


class RunningBuild:
    """A build under way, as the work sees it.

    Attributes:
        build: what is known of it now.
        folder: a folder of its own, removed when it ends.
        committed: whether it is too late to cancel it.
        slots: held by whoever does heavy work, so that not too many do at once.
        task: ends with the outcome, or with the error that the deploy failed with.
    """

    task: asyncio.Task[Outcome]

    def __init__(self, build: Build, folder: Path, slots: asyncio.Semaphore) -> None:
        self.build = build
        self.folder = folder / "work"
        self.slots = slots
        self.committed = False
        self.lines = read_log(folder)
        self.news = asyncio.Event()
        self.folder.mkdir(parents=True)
        self._log = (folder / "log").open("ab", buffering=0)

    def say(self, message: str) -> None:
        """Adds a line to the log."""
        line = BuildLine(time=time(), message=message)
        self.lines.append(line)
        self._log.write(line.model_dump_json().encode() + b"\n")
        self.tell()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits until there is room for another that builds, and takes it."""
        if self.slots.locked():
            self.say("waiting for other builds to end")
            self.enter(BuildState.QUEUED)
        async with self.slots:
            self.enter(BuildState.BUILDING)
            yield

    def enter(self, state: BuildState) -> None:
        """Goes on to the next step."""
        phase = self.build.phase.after(state)
        self.build = self.build.model_copy(update={"state": state, "phase": phase})
        self.tell()

    def note_commit(self, commit: str) -> None:
        """It is made of this commit of a git repository."""
        self.build = self.build.model_copy(update={"commit": commit})

    def commit(self) -> None:
        """It takes effect now."""
        self.committed = True

    def end(self, state: BuildState, revision: int | None, error: str | None) -> None:
        """Nothing more will happen."""
        phase = self.build.phase.after(state)
        ended = {"state": state, "phase": phase, "revision": revision, "error": error, "finished": time()}
        self.build = self.build.model_copy(update=ended)
        self._log.close()

    def abandon(self) -> None:
        """The next life of this process goes on with it."""
        self._log.close()

    def tell(self) -> None:
        """Wakes whoever follows the log."""
        self.news.set()
        self.news = asyncio.Event()


Work = Callable[[RunningBuild], Awaitable[Outcome]]


class Builds:
    """See the module.

    Args:
        registry: where builds are remembered.
        folder: where each has a folder with its log.
        at_once: how many may do heavy work (`RunningBuild.slots`) at once.
    """

    def __init__(self, registry: Registry, folder: Path, at_once: int) -> None:
        self._registry = registry
        self._folder = folder
        self._slots = asyncio.Semaphore(at_once)
        self._known: dict[str, Build] = {}
        self._last: dict[str, Build] = {}
        self._running: dict[str, RunningBuild] = {}
        self.closing = False

    async def open(self, resumed: Collection[str] = ()) -> None:
        """Reads what is remembered; builds that an earlier life left unfinished have failed, less those ``resumed``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for build in sorted(await self._registry.list_builds(), key=lambda build: build.started):
            if build.finished is None and build.id not in resumed:
                build = await self._fail(build, INTERRUPTED)
            self._known[build.id] = self._last[build.function] = build
        for folder in self._folder.iterdir():
            remove_tree(folder / "work" if folder.name in self._known else folder)

    async def close(self) -> None:
        """Stops the builds under way."""
        self.closing = True
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, build: Build, work: Work) -> RunningBuild:
        """Starts a build, which goes on whether or not anybody waits for it.

        Args:
            build: what `new_build` or `again` returned.
            work: does it.
        """
        running = RunningBuild(build, self._folder / build.id, self._slots)
        self._known[build.id] = build
        self._running[build.id] = running
        running.task = asyncio.create_task(self._run(running, work))
        running.task.add_done_callback(_look_at)
        return running

    def again(self, build_id: str) -> Build | None:
        """Returns a build that was cut off, to be begun again; None where it is not remembered."""
        build = self._known.get(build_id)
        begun = {"state": BuildState.QUEUED, "phase": BuildPhase.CREATED}
        return None if build is None else build.model_copy(update=begun)

    async def give_up(self, build_id: str, error: str) -> None:
        """Lets a build that was cut off have failed."""
        if build_id in self._known:
            self._known[build_id] = await self._fail(self._known[build_id], error)

    async def cancel(self, build_id: str) -> Build:
        """Ends a build under way, with all that runs for it.

        Raises:
            NotFound: there is no such build.
            Conflict: it has ended, or is taking effect.
        """
        running = self._running.get(build_id)
        if running is None or running.committed:
            build = self.get(build_id)
            raise Conflict(f"the build {build.id} is {build.state} and cannot be cancelled any more")
        running.task.cancel()
        await asyncio.wait([running.task])
        return self.get(build_id)

    def last(self, function: str) -> Build | None:
        """Returns the build of a function that has ended last."""
        return self._last.get(function)

    def recent(self, function: str | None = None) -> list[Build]:
        """Returns the builds, newest first, of one function or of all."""
        builds = [self.get(known) for known in reversed(self._known)]
        return [build for build in builds if function in (None, build.function)]

    def get(self, build_id: str) -> Build:
        """Returns a build. Raises `NotFound`."""
        if build_id in self._running:
            return self._running[build_id].build
        if build_id not in self._known:
            raise NotFound(f"there is no build {build_id!r}")
        return self._known[build_id]

    async def find(self, build_id: str) -> Build:
        """Returns a build, perhaps of another machine: the store has its beginning and its end. Raises `NotFound`."""
        build = self._known.get(build_id)
        if build_id in self._running or (build is not None and build.finished is not None):
            return self.get(build_id)
        try:
            return await self._registry.get_build(build_id)
        except NotFound:
            raise NotFound(f"there is no build {build_id!r}") from None

    async def follow(self, build_id: str) -> AsyncIterator[BuildLine]:
        """Yields the lines of a build's log, and those to come until it has ended; what a build of another machine says
        is known there only. Raises `NotFound`."""
        running = self._running.get(build_id)
        if running is None:
            while (await self.find(build_id)).finished is None:
                await asyncio.sleep(LOOK)
            for line in await asyncio.to_thread(read_log, self._folder / build_id):
                yield line
            return
        seen = 0
        while True:
            news, ended = running.news, running.build.finished is not None
            fresh = running.lines[seen:]
            seen += len(fresh)
            for line in fresh:
                yield line
            if ended:
                return
            await news.wait()

    async def _run(self, running: RunningBuild, work: Work) -> Outcome:
        try:
            await self._registry.put_build(running.build)
            try:
                outcome = await work(running)
            except (StoreError, BlobError) as error:
                log.warning("storage_unreachable", build=running.build.id, error=str(error))
                raise Unavailable("the platform's storage is out of reach; try again") from error
            await self._end(running, BuildState.READY, revision=outcome.revision)
            return outcome
        except MartletError as error:
            running.say(str(error))
            error.extra |= {"build": running.build.id, "log": [line.message for line in running.lines]}
            await self._end(running, BuildState.FAILED, error=error.detail)
            raise
        except asyncio.CancelledError:
            if self.closing:
                running.abandon()
            else:
                running.say(CANCELLED)
                await self._end(running, BuildState.CANCELLED, error=CANCELLED)
            raise
        except Exception:
            log.exception("build_failed", build=running.build.id, function=running.build.function)
            await self._end(running, BuildState.FAILED, error=MartletError.title)
            raise

    async def _end(
        self, running: RunningBuild, state: BuildState, revision: int | None = None, error: str | None = None
    ) -> None:
        running.end(state, revision, error)
        self._known[running.build.id] = self._last[running.build.function] = running.build
        with suppress(Exception):
            await self._registry.put_build(running.build)
            await self._prune()
        del self._running[running.build.id]
        await asyncio.to_thread(remove_tree, running.folder)
        running.tell()

    async def _prune(self) -> None:
        finished = [build for build in self._known if build not in self._running]
        for build_id in finished[: max(0, len(self._known) - BUILDS_KEPT)]:
            build = self._known.pop(build_id)
            if self._last.get(build.function) == build:
                del self._last[build.function]
            await self._registry.delete_build(build_id)
            await asyncio.to_thread(remove_tree, self._folder / build_id)

    async def _fail(self, build: Build, error: str) -> Build:
        phase = build.phase.after(BuildState.FAILED)
        ended = {"state": BuildState.FAILED, "phase": phase, "error": error, "finished": time()}
        build = build.model_copy(update=ended)
        await self._registry.put_build(build)
        return build


def new_build(function: str, build_id: str | None = None) -> Build:
    """Returns a build of a function that has not begun."""
    build_id = build_id or f"b{secrets.token_hex(8)}"
    return Build(id=build_id, function=function, state=BuildState.QUEUED, started=time())


def read_log(folder: Path) -> list[BuildLine]:
    """Returns what the build with this folder has said so far."""
    try:
        lines = (folder / "log").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [BuildLine.model_validate_json(line) for line in lines if line.endswith(b"}")]


def _look_at(task: asyncio.Task[Outcome]) -> None:
    """Looks at the error of a task, which asyncio would complain about where nobody waits for the build."""
    if not task.cancelled():
        task.exception()
