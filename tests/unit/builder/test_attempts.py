"""Builds of machines that share a store: which attempt's word counts, and what is left of the others."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from martlet.builder.build_logs import BuildLogs
from martlet.builder.builds import Builds, Sharing, new_build
from martlet.builder.hold import Hold
from martlet.builder.running import Outcome, RunningBuild
from martlet.control.queue import Queue
from martlet.errors import Invalid
from martlet.model import Build, BuildState, Waiting
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry
from martlet.storage.store import StoreError

pytestmark = pytest.mark.anyio

BUILD = "b1"
OUTCOME = Outcome(1)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.builder.report.EVERY", 0.005)


class Lines:
    """Work that says what a test tells it to, and ends as it tells it to."""

    def __init__(self) -> None:
        self.running: asyncio.Future[RunningBuild] = asyncio.get_running_loop().create_future()
        self._end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def __call__(self, running: RunningBuild) -> Outcome:
        self.running.set_result(running)
        return await self._end

    async def say(self, *messages: str) -> None:
        for message in messages:
            (await self.running).say(message)

    def end(self, error: Exception | None = None) -> None:
        if error is None:
            self._end.set_result(OUTCOME)
        else:
            self._end.set_exception(error)


@dataclass
class Machine:
    registry: Registry
    logs: BuildLogs
    queue: Queue
    builds: Builds
    hold: Hold | None = None

    async def take(self, work: Lines) -> RunningBuild:
        """Takes the one deploy that there is, whoever has it."""
        ((waiting, written),) = await self.queue.written()
        hold = self.hold = await self.queue.take(waiting, written)
        assert hold is not None
        build = await self.builds.again(BUILD) or new_build("hello", BUILD)
        said = await self.builds.said(build)
        return self.builds.begin(build, work, hold, lambda: self.queue.drop(hold), said)

    async def record(self) -> Build:
        return await self.registry.get_build(BUILD)

    async def said(self) -> list[str]:
        return [line.message for line in await self.logs.lines(await self.record())]

    async def until_said(self, *messages: str) -> None:
        await until(lambda: self._has_said(messages))

    async def _has_said(self, messages: tuple[str, ...]) -> bool:
        return set(messages) <= set(await self.said())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


class Cluster:
    """Machines of one store, in whose queue one deploy waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store: Any = MemoryStore()
        self.blobs = Blobs.memory()

    async def leave(self) -> None:
        waiting = Waiting(
            build=BUILD,
            function="hello",
            kind="nothing",
            config={},
            expect="either",
            replace=False,
            upgrade=False,
            attempts=0,
            started=1.0,
        )
        await Registry(self.store).put_waiting(waiting)

    def machine(self, name: str) -> Machine:
        registry, logs = Registry(self.store), BuildLogs(self.blobs)

        async def outcome(build: str) -> Outcome:
            while (found := await registry.get_build(build)).finished is None:
                await asyncio.sleep(0.002)
            assert found.revision is not None
            return Outcome(found.revision, found.unchanged)

        builds = Builds(registry, self._folder / name, 2, name, Sharing(logs, outcome))
        return Machine(registry, logs, Queue(registry, self.blobs, name), builds)


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path)
    await cluster.leave()
    return cluster


async def test_what_a_machine_says_that_does_not_know_that_it_was_cut_off_is_in_no_log(
    cluster: Cluster,
) -> None:
    first, second, late, work = cluster.machine("first"), cluster.machine("second"), Lines(), Lines()
    before = await first.take(late)
    await late.say("packed")
    await first.until_said("packed")
    running = await second.take(work)
    await work.say("a second attempt")
    await second.until_said("a second attempt")
    parts = len(await cluster.blobs.list("build-logs"))
    await late.say("too late")

    async def written() -> bool:
        return len(await cluster.blobs.list("build-logs")) > parts

    await until(written)
    work.end()
    assert await running.task == OUTCOME
    assert await second.said() == ["packed", "a second attempt"]
    late.end()
    assert await before.task == OUTCOME
    assert not first.builds.is_running(BUILD)
    assert (await first.record()).attempt == 2


async def test_a_machine_that_was_cut_off_and_fails_ends_the_build_of_nobody(cluster: Cluster) -> None:
    first, second, late, work = cluster.machine("first"), cluster.machine("second"), Lines(), Lines()
    before = await first.take(late)
    await late.running
    running = await second.take(work)
    await work.running
    late.end(Invalid("it could not reach anything"))
    await asyncio.wait({before.task}, timeout=0.05)
    assert (await second.record()).finished is None
    assert [each.node for each in await second.queue.waiting()] == ["second"]
    work.end()
    assert await running.task == OUTCOME
    assert await before.task == OUTCOME  # as the second has it
    record = await first.record()
    assert (record.state, record.node, record.error) == (BuildState.READY, "second", None)
    assert await first.queue.waiting() == []


async def test_what_ends_before_it_is_seen_that_somebody_cancels_it_has_ended(cluster: Cluster) -> None:
    machine, work = cluster.machine("first"), Lines()
    running = await machine.take(work)
    await work.running
    waiting, written = await machine.registry.read_waiting(BUILD)
    await machine.registry.put_waiting(
        waiting.model_copy(update={"cancelled": True}), expect_revision=written
    )
    work.end()
    assert await running.task == OUTCOME
    assert (await machine.record()).state is BuildState.READY
    assert await machine.queue.waiting() == []


async def test_an_attempt_that_came_to_say_nothing_loses_nothing(cluster: Cluster) -> None:
    machine, work = cluster.machine("first"), Lines()
    await machine.take(work)
    await work.say("packed")
    await machine.until_said("packed")
    killed = await machine.record()
    await machine.registry.put_build(killed.model_copy(update={"attempt": 2}))
    assert await machine.said() == ["packed"]
    other, again = cluster.machine("second"), Lines()
    running = await other.take(again)
    again.end()
    await running.task
    assert (await other.record()).attempt == 3
    assert await other.said() == ["packed"]


async def test_all_attempts_are_deleted(cluster: Cluster) -> None:
    for name in ("first", "second"):
        machine, work = cluster.machine(name), Lines()
        await machine.take(work)
        await work.say(name)
        await machine.until_said(name)
    assert len(await cluster.blobs.list("build-logs")) > 1
    await machine.logs.delete(await machine.record())
    assert await cluster.blobs.list("build-logs") == []


class _Deaf:
    """A store that takes no writes any more once it is told so."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.deaf = False

    async def put(self, key: str, value: bytes, **conditions: Any) -> int:
        if self.deaf:
            raise StoreError("out of reach")
        return await self._store.put(key, value, **conditions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_an_end_that_cannot_be_written_leaves_the_deploy_in_the_queue(cluster: Cluster) -> None:
    deaf = cluster.store = _Deaf(cluster.store)
    machine, work = cluster.machine("first"), Lines()
    running = await machine.take(work)
    await work.running
    deaf.deaf = True
    work.end()
    assert await running.task == OUTCOME
    assert [each.build for each in await machine.queue.waiting()] == [BUILD]


async def test_what_ends_while_another_machine_starts_has_not_been_interrupted(cluster: Cluster) -> None:
    machine, starting, work = cluster.machine("first"), cluster.machine("second"), Lines()
    running = await machine.take(work)
    await work.running

    async def resumed() -> set[str]:
        work.end()
        await running.task
        return {each.build for each in await starting.queue.waiting()}

    await starting.builds.open(resumed)
    assert (await starting.record()).state is BuildState.READY
    assert starting.builds.get(BUILD).state is BuildState.READY
