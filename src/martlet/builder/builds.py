"""Builds: what is being deployed now, what was, and what they said."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import NamedTuple

import structlog

from martlet.builder.build_logs import BuildLogs
from martlet.builder.build_records import BuildRecords
from martlet.builder.hold import Hold
from martlet.builder.lines import BuildLine, read_log
from martlet.builder.report import Report
from martlet.builder.running import Outcome, RunningBuild
from martlet.errors import Conflict, MartletError, NotFound, Unavailable
from martlet.model import Build, BuildPhase, BuildState
from martlet.package.staging import remove_tree
from martlet.storage.blobs import BlobError
from martlet.storage.registry import Registry
from martlet.storage.store import GuardLost, StoreError

log = structlog.get_logger()

CANCELLED = "it was cancelled"


class HandedOver(Exception):
    """This machine cannot build it, for it lacks this runtime, and another can."""

    def __init__(self, runtime: str) -> None:
        super().__init__(runtime)
        self.runtime = runtime


@dataclass(frozen=True, slots=True)
class Begun:
    """A build that another machine runs; ``task`` ends as that of a `RunningBuild` does."""

    build: Build
    task: asyncio.Task[Outcome]


class Sharing(NamedTuple):
    """How machines that build for each other know of their builds.

    Attributes:
        logs: what all of them have said.
        outcome: returns how the build of another has ended, or raises as it has failed.
    """

    logs: BuildLogs
    outcome: Callable[[str], Awaitable[Outcome]]


Work = Callable[[RunningBuild], Awaitable[Outcome]]


class Builds:
    """See the module.

    Args:
        registry: where builds are remembered.
        folder: where each has a folder with its log.
        at_once: how many may do heavy work (`RunningBuild.slots`) at once.
        node: the id of this machine.
        sharing: with the other machines; None: there are none.
    """

    def __init__(
        self, registry: Registry, folder: Path, at_once: int, node: str = "", sharing: Sharing | None = None
    ) -> None:
        self._registry = registry
        self._folder = folder
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)
        self._node = node
        self._sharing = sharing
        self._records = BuildRecords(registry, folder, node, None if sharing is None else sharing.logs)
        self._running: dict[str, RunningBuild] = {}
        self._awaited: set[asyncio.Task[Outcome]] = set()
        self.closing = False

    async def open(self, resumed: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Reads what is remembered; builds that an earlier life left unfinished have failed.

        Args:
            resumed: returns those that somebody goes on with; asked after the builds, so that none that has just begun
                is taken for one that was left.
        """
        await self._records.open(resumed)

    async def close(self) -> None:
        """Stops the builds under way. It is no fault of theirs, and not counted against them."""
        self.closing, held = True, self.held
        tasks = [*(running.task for running in self._running.values()), *self._awaited]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, hold in held.items():
            try:
                await hold.stop()
            except StoreError as error:  # then it is counted
                log.warning("build_stop_not_noted", build=name, error=str(error))

    def begin(
        self,
        build: Build,
        work: Work,
        hold: Hold | None = None,
        done: Callable[[], Awaitable[None]] | None = None,
        said: Sequence[BuildLine] = (),
    ) -> RunningBuild:
        """Starts a build, which goes on whether or not anybody waits for it.

        Args:
            build: what `new_build` or `again` returned.
            work: does it.
            hold: this machine's on it; None where nobody else can take it up.
            done: called when it has ended, and nobody is to take it up any more.
            said: what `said` returned.
        """
        build = build.model_copy(update={"node": self._node or None, "attempt": build.attempt + 1})
        folder = self._folder / build.id
        running = RunningBuild(build, folder, self._slots, self._registry, hold, said)
        report = None if self._sharing is None else Report(running, self._sharing.logs)
        self._records.begun(build)
        self._running[build.id] = running
        running.task = asyncio.create_task(self._run(running, work, report, done or _nothing))
        running.task.add_done_callback(_look_at)
        return running

    def expect(self, build: Build) -> Begun:
        """Waits for a build that another machine takes up; whoever asks what has become of it here will know."""
        task = asyncio.create_task(self._hear(build.id))
        self._awaited.add(task)
        task.add_done_callback(self._awaited.discard)
        task.add_done_callback(_look_at)
        return Begun(build, task)

    async def again(self, build_id: str) -> Build | None:
        """Returns a build that was cut off, to be begun again, or as it has ended; None where it is not remembered."""
        try:
            build = await self._records.read(build_id)
        except NotFound:
            return None
        begun = {"state": BuildState.QUEUED, "phase": BuildPhase.CREATED}
        return build if build.finished is not None else build.model_copy(update=begun)

    async def said(self, build: Build) -> list[BuildLine]:
        """Returns what earlier attempts have said, as other machines can read it. Raises `BlobError`."""
        return [] if self._sharing is None else await self._sharing.logs.lines(build)

    async def give_up(
        self, hold: Hold, build: Build, error: str, state: BuildState = BuildState.FAILED
    ) -> None:
        """Lets a build that was cut off have failed, or whatever ``state`` it has ended in. Raises `StoreError`."""
        await self._records.end(hold.registry, build, error, state)

    async def cancel(self, build_id: str) -> Build:
        """Ends a build under way here, with all that runs for it.

        Raises:
            NotFound: there is no such build.
            Conflict: it has ended, or is taking effect.
        """
        running = self._running.get(build_id)
        if running is None or running.committed or running.build.finished is not None:
            build = await self.find(build_id)
            raise Conflict(f"the build {build.id} is {build.state} and cannot be cancelled any more")
        running.task.cancel()
        await asyncio.wait([running.task])
        return self.get(build_id)

    def lose(self, build_id: str) -> None:
        """Lets go of a build that another machine has taken up."""
        running = self._running[build_id]
        running.lost = True
        running.task.cancel()

    def stop(self, build_id: str) -> None:
        """Cancels a build for another machine; harmless where it was, or takes effect already."""
        running = self._running[build_id]
        if not running.stopped and not running.committed:
            running.stopped = True
            running.task.cancel()

    @property
    def held(self) -> dict[str, Hold]:
        """What this machine has of each build under way here, but for those that nobody else could take up."""
        return {
            name: each.hold
            for name, each in self._running.items()
            if each.hold is not None and not each.lost and each.build.finished is None
        }

    @property
    def has_room(self) -> bool:
        """Whether a build of another machine would not have to wait here for others."""
        return len(self._running) < self._at_once

    def last(self, function: str) -> Build | None:
        """Returns the build of a function that has ended last, as far as is known here."""
        return self._records.last(function)

    async def recent(self, function: str | None = None) -> list[Build]:
        """Returns the builds of all machines, newest first, of one function or of all."""
        builds = await self._records.all()
        builds |= {name: running.build for name, running in self._running.items()}
        newest_first = sorted(builds.values(), key=lambda build: build.started, reverse=True)
        return [build for build in newest_first if function in (None, build.function)]

    def get(self, build_id: str) -> Build:
        """Returns a build, as it is known here. Raises `NotFound`."""
        if build_id in self._running:
            return self._running[build_id].build
        build = self._records.get(build_id)
        if build is None:
            raise NotFound(f"there is no build {build_id!r}")
        return build

    async def find(self, build_id: str) -> Build:
        """Returns a build, perhaps of another machine, which says how it goes. Raises `NotFound`."""
        build = self._records.get(build_id)
        if build_id in self._running or (build is not None and build.finished is not None):
            return self.get(build_id)
        return await self._records.read(build_id)

    def is_running(self, build_id: str) -> bool:
        """Whether a build is under way here."""
        return build_id in self._running

    def has_log(self, build_id: str) -> bool:
        """Whether all that a build says is known here."""
        return build_id in self._running or (self._folder / build_id / "log").exists()

    async def follow(self, build_id: str) -> AsyncIterator[BuildLine]:
        """Yields the lines of a build of this machine, and those to come until it has ended, or another has it."""
        running = self._running.get(build_id)
        if running is None:
            for line in await asyncio.to_thread(read_log, self._folder / build_id):
                yield line
            return
        seen = 0
        while True:
            news, ended = running.news, build_id not in self._running
            fresh = running.lines[seen:]
            seen += len(fresh)
            for line in fresh:
                yield line
            if ended:
                return
            await news.wait()

    async def _run(
        self, running: RunningBuild, work: Work, report: Report | None, done: Callable[[], Awaitable[None]]
    ) -> Outcome:
        try:
            return await self._attempt(running, work, report, done)
        except GuardLost:  # however it has ended here, that does not count
            return await self._let_go(running)

    async def _attempt(
        self, running: RunningBuild, work: Work, report: Report | None, done: Callable[[], Awaitable[None]]
    ) -> Outcome:
        """Does the work, and writes down how it has ended. Raises `GuardLost`: another machine has it by then."""
        reporting: asyncio.Task[None] | None = None

        async def end(
            state: BuildState, outcome: Outcome | None = None, error: MartletError | None = None
        ) -> None:
            if reporting is not None and report is not None:
                reporting.cancel()
                await asyncio.gather(
                    reporting, return_exceptions=True
                )  # or it may be told again that it goes on
                await report.tell_lines()
            await self._end(running, done, state, outcome, error)

        async def cancelled() -> None:
            running.say(CANCELLED)
            await end(BuildState.CANCELLED, error=MartletError(CANCELLED))

        try:
            try:
                await running.registry.put_build(running.build)
                if report is not None:  # from now on the log of this attempt is this machine's
                    reporting = asyncio.create_task(report.keep())
                outcome = await work(running)
            except HandedOver as wanted:
                return await self._hand_over(running, report, wanted.runtime)
            except GuardLost:
                running.lost = True  # so that nobody cancels the task for it
                if running.hold is None or not await running.hold.is_cancelled():
                    raise
                running.lost, running.stopped = False, True
                await cancelled()
                raise asyncio.CancelledError from None
            except (StoreError, BlobError) as error:
                log.warning("storage_unreachable", build=running.build.id, error=str(error))
                raise Unavailable("the platform's storage is out of reach; try again") from error
            await end(BuildState.READY, outcome)
            return outcome
        except GuardLost:
            raise
        except MartletError as error:
            running.say(str(error))
            error.extra |= {"build": running.build.id, "log": [line.message for line in running.lines]}
            await end(BuildState.FAILED, error=error)
            raise
        except asyncio.CancelledError:
            if running.lost and not self.closing:
                current = asyncio.current_task()
                assert current is not None
                current.uncancel()
                return await self._let_go(running)
            if self.closing:
                running.abandon()
            elif running.build.finished is None:
                await cancelled()
            raise
        except Exception:
            log.exception("build_failed", build=running.build.id, function=running.build.function)
            await end(BuildState.FAILED, error=MartletError())
            raise
        finally:
            if reporting is not None:
                reporting.cancel()

    async def _end(
        self,
        running: RunningBuild,
        done: Callable[[], Awaitable[None]],
        state: BuildState,
        outcome: Outcome | None,
        error: MartletError | None,
    ) -> None:
        running.end(state, outcome, error)
        written = await self._write_end(running)
        self._records.ended(running.build)
        if written:
            with suppress(Exception):
                await self._records.prune(self._running)
            await done()
        await asyncio.to_thread(remove_tree, running.folder)
        del self._running[running.build.id]
        running.tell()

    async def _write_end(self, running: RunningBuild) -> bool:
        """Tells all machines how it has ended; says whether that could be. Raises `GuardLost`."""
        try:
            try:
                await running.registry.put_build(running.build)
            except GuardLost:
                if running.hold is None or not await running.hold.is_cancelled():
                    raise
                await running.registry.put_build(running.build)  # it was too late to cancel it
        except GuardLost:
            raise
        except StoreError as error:  # it stays in the queue: the next life of this machine finds it done
            log.warning("build_end_not_written", build=running.build.id, error=str(error))
            return False
        return True

    async def _hand_over(self, running: RunningBuild, report: Report | None, runtime: str) -> Outcome:
        """Lets a machine have a build that can build this runtime, and returns how it has ended there."""
        running.lost = True
        if report is not None:
            await report.tell_lines()  # before the other one goes on with the log
        if running.hold is not None:
            await running.hold.release(runtime)
        return await self._let_go(running)

    async def _let_go(self, running: RunningBuild) -> Outcome:
        """Forgets a build that another machine has, or will have, and returns how it has ended there."""
        log.info("build_left_to_another", build=running.build.id)
        running.abandon()
        self._records.forget(running.build.id)
        await asyncio.to_thread(remove_tree, running.folder)
        del self._running[running.build.id]
        running.tell()
        return await self._hear(running.build.id)

    async def _hear(self, build_id: str) -> Outcome:
        assert self._sharing is not None
        try:
            return await self._sharing.outcome(build_id)
        finally:
            await self._records.learn(build_id)


def new_build(function: str, build_id: str | None = None) -> Build:
    """Returns a build of a function that has not begun."""
    build_id = build_id or f"b{secrets.token_hex(8)}"
    return Build(id=build_id, function=function, state=BuildState.QUEUED, started=time())


async def _nothing() -> None:
    """There is nothing to do when it has ended."""


def _look_at(task: asyncio.Task[Outcome]) -> None:
    """Looks at the error of a task, which asyncio would complain about where nobody waits for the build."""
    if not task.cancelled():
        task.exception()
