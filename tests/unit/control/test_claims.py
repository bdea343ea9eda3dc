"""Machines that build for others: who takes a deploy, who goes on with it, and what people see of it elsewhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from martlet.builder.builds import CANCELLED
from martlet.control import elsewhere
from martlet.model import Build, BuildState, Drain
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.store import Lease
from tests.example_runtime import write_runtime
from tests.unit.control.conftest import HANDLER, Platform, assert_problem, running, zipped

pytestmark = pytest.mark.anyio

LONG = 60


class Cluster:
    """Platforms that share a store and blobs. Each is on the list of nodes while its lease is not revoked."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._store = MemoryStore()
        self._blobs = Blobs.local(folder / "blobs")
        self._leases: dict[str, Lease] = {}
        self._platforms: list[Platform] = []

    async def add(self, name: str, roles: str, **system: Any) -> Platform:
        shared = {"store": "etcd://10.0.0.1:2379", "peer_address": "10.0.0.1:8001"}
        (self._folder / name).mkdir()
        platform = Platform(self._folder / name, roles=roles, **shared, **system)
        platform.store, platform.blobs = self._store, self._blobs
        await self._stack.enter_async_context(running(platform))
        self._platforms.append(platform)
        await self.list(platform)
        return platform

    async def list(self, platform: Platform) -> None:
        registry = platform.control.registry
        node = await platform.control.machine.node()
        lease = self._leases[node.id] = await registry.join(600)
        await self._seen(await registry.put_node(node, lease))

    async def forget(self, platform: Platform) -> None:
        """The store has not heard of it for too long."""
        await self._leases[id_of(platform)].revoke()
        await self._seen(await self._store.revision())

    async def drain(self, platform: Platform) -> None:
        await self._seen(await platform.control.registry.put_drain(Drain(node=id_of(platform), since=1.0)))

    async def _seen(self, revision: int) -> None:
        for platform in self._platforms:
            await platform.control.view.catch_up(revision)


def id_of(platform: Platform) -> str:
    return platform.control.machines.own


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(elsewhere, "LOOK", 0.02)
    monkeypatch.setattr("martlet.control.claims.EVERY", 0.02)
    monkeypatch.setattr("martlet.builder.report.EVERY", 0.02)
    async with asyncio.timeout(LONG), AsyncExitStack() as stack:
        yield Cluster(tmp_path, stack)


@asynccontextmanager
async def loading_at(*platforms: Platform) -> AsyncIterator[None]:
    """Loads of these wait meanwhile."""
    for lane in (lane for platform in platforms for lane in platform.lanes):
        lane.hold.clear()
    yield
    for lane in (lane for platform in platforms for lane in platform.lanes):
        lane.hold.set()


async def begin(platform: Platform, name: str = "hello", **config: Any) -> str:
    body = {"name": name, "code": HANDLER, "config": config}
    answer = await platform.client.post("/functions?wait=false", json=body)
    assert answer.status_code == 202, answer.text
    build: str = answer.json()["id"]
    return build


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    while not (found := await condition()):
        await asyncio.sleep(0.01)
    return found


async def at(platform: Platform, build: str, state: BuildState, node: Platform | None = None) -> Build:
    """Waits until a platform sees a build in a state, perhaps on one machine."""

    async def there() -> Build | None:
        seen = Build.model_validate((await platform.client.get(f"/builds/{build}")).json())
        return seen if seen.state is state and node in (None, *_built(seen, node)) else None

    found: Build = await until(there)
    return found


def _built(build: Build, node: Platform | None) -> tuple[Platform, ...]:
    return (node,) if node is not None and build.node == id_of(node) else ()


async def log_of(platform: Platform, build: str) -> list[str]:
    text = (await platform.client.get(f"/builds/{build}/logs")).text
    lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line)["message"] for line in lines]


async def test_control_alone_builds_nothing_and_says_so(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    body = {"name": "hello", "code": HANDLER}
    problem = assert_problem(await control.client.post("/functions", json=body), 503, "unavailable")
    assert "no machine with the role builder is alive" in problem["detail"]
    assert (await control.client.get("/builds")).json() == []


async def test_a_builder_builds_and_everybody_sees_what_it_does(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node")
    made = await control.create()
    assert (made["revision"], made["unchanged"]) == (1, False)
    build = await at(control, made["build"], BuildState.READY)
    assert build.node == id_of(builder)
    said = await log_of(control, build.id)
    assert said[-1] == "hello@1 serves"
    assert said == await log_of(builder, build.id)
    assert [one["id"] for one in (await control.client.get("/builds")).json()] == [build.id]
    again = await control.client.put("/functions/hello", json={"code": HANDLER})
    assert again.json()["unchanged"]
    await until(lambda: _is_not_running(builder, again.json()["build"]))  # it tidies up behind its answer
    assert await control.control.queue.waiting() == []
    assert await control.blobs.list("uploads") == []


async def test_how_it_fails_is_told_as_where_it_failed(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node")
    for lane in builder.lanes:
        lane.refuse = {"code": "function_load_failed", "status": 502, "detail": "it does not load"}
    body = {"name": "hello", "code": HANDLER}
    answer = await control.client.post("/functions", json=body)
    problem = assert_problem(answer, 502, "function_load_failed")
    assert problem["detail"] == "it does not load"
    assert problem["log"][-1] == "it does not load"
    assert (await control.client.get(f"/builds/{problem['build']}")).json()["state"] == "failed"


async def test_a_build_of_a_machine_that_is_gone_is_ended_by_another_and_by_that_only(
    cluster: Cluster,
) -> None:
    control = await cluster.add("c", "gateway,control")
    first = await cluster.add("a", "builder,node")
    async with loading_at(first):
        build = await begin(control)
        await at(control, build, BuildState.LOADING, first)
        following = asyncio.create_task(log_of(control, build))
        second = await cluster.add("b", "builder,node")
        await cluster.forget(first)
        ended = await at(control, build, BuildState.READY, second)
    # The first does not know yet that it was forgotten; what it would write now is refused.
    await until(lambda: _is_not_running(first, build))
    assert (ended.revision, ended.node) == (1, id_of(second))
    assert await at(first, build, BuildState.READY) == ended
    assert (await control.view()).functions["hello"].counter == 1
    said = await log_of(control, build)
    assert said.count("hello@1 serves") == 1
    assert "the platform was restarted; this is attempt 2 of 3" in said
    assert said == await log_of(second, build)
    assert said == [line for line in await following if not line.startswith("the machine that built it")]


async def _is_not_running(platform: Platform, build: str) -> bool:
    return not platform.control.builds.is_running(build)


async def test_what_is_about_to_be_swept_is_not_taken_for_stored(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = await cluster.add("c", "gateway,control")
    await cluster.add("b", "builder,node")
    made = await control.create()
    sweeps, goes_on, delete = asyncio.Event(), asyncio.Event(), control.blobs.delete

    async def slowly(prefix: str, digest: str) -> None:
        if prefix == "packages":
            sweeps.set()
            await goes_on.wait()
        await delete(prefix, digest)

    async def is_left() -> bool:
        control.control.garbage.sweep_soon()
        await asyncio.wait({asyncio.ensure_future(sweeps.wait())}, timeout=0.02)
        return sweeps.is_set()

    monkeypatch.setattr(control.blobs, "delete", slowly)
    await control.client.delete("/functions/hello")
    await until(is_left)
    build = await begin(control)
    await at(control, build, BuildState.QUEUED)
    await asyncio.sleep(0.1)  # in which it would be made of what is stored
    goes_on.set()
    await at(control, build, BuildState.READY)
    assert await control.blobs.list("packages") == [made["code"]]


async def test_a_build_is_cancelled_from_a_machine_that_does_not_run_it(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node")
    async with loading_at(builder):
        build = await begin(control)
        await at(control, build, BuildState.LOADING)
        answer = await control.client.delete(f"/builds/{build}")
        assert answer.json()["state"] == "cancelled"
    assert (await log_of(control, build))[-1] == CANCELLED
    assert_problem(await control.client.delete(f"/builds/{build}"), 409, "conflict")
    assert await control.control.queue.waiting() == []
    assert (await control.view()).functions == {}


async def test_what_no_machine_has_taken_waits_with_a_reason_and_can_be_cancelled(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node", max_builds=1)
    async with loading_at(builder):
        first = await begin(control, "first")
        await at(control, first, BuildState.LOADING)
        second = await begin(control, "second")
        await cluster.forget(builder)
        following = asyncio.create_task(log_of(control, second))
        await asyncio.sleep(0)
        assert (await control.control.registry.get_build(second)).node is None
        async with asyncio.timeout(LONG):
            lines = control.control.elsewhere.follow(second)
            line = await anext(lines)
            await lines.aclose()  # type: ignore[attr-defined]
        assert "no machine with the role builder is alive" in line.message
        answer = await control.client.delete(f"/builds/{second}")
        assert answer.json()["state"] == "cancelled"
        await following
        await cluster.list(builder)
    await at(control, first, BuildState.READY)


async def test_a_machine_takes_no_more_than_it_builds_at_once(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node", max_builds=2)
    async with loading_at(builder):
        builds = [await begin(control, name) for name in ("one", "two", "three")]
        for build in builds[:2]:
            await at(control, build, BuildState.LOADING)
        await builder.control.claims.look()  # type: ignore[union-attr]
        waiting = {each.build: each.node for each in await control.control.queue.waiting()}
        assert waiting == {builds[0]: id_of(builder), builds[1]: id_of(builder), builds[2]: ""}
    await at(control, builds[2], BuildState.READY)


async def test_a_runtime_is_left_to_the_builder_that_has_it(cluster: Cluster, tmp_path: Path) -> None:
    write_runtime(tmp_path / "runtimes/template")
    control = await cluster.add("c", "gateway,control")
    await cluster.add("a", "builder,node")
    able = await cluster.add("b", "builder,node", runtimes_path=tmp_path / "runtimes")
    await control.create("page", "Hello", runtime="template")
    (build,) = (await control.client.get("/builds")).json()
    assert build["node"] == id_of(able)


async def test_what_only_the_code_says_is_handed_over(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("lacks", "has"):
        write_runtime(tmp_path / name / "template")
    with (tmp_path / "lacks/template/runtime.toml").open("a") as description:
        description.write('\n[toolchain]\nprograms = ["no-such-program"]\nversion = ["{program}"]\n')
    control = await cluster.add("c", "gateway,control")
    unable = await cluster.add("a", "builder,node", runtimes_path=tmp_path / "lacks")
    able = await cluster.add("b", "builder,node", runtimes_path=tmp_path / "has")
    await cluster.drain(able)  # so that the other takes it
    archive = {"archive": ("page.zip", zipped({"page.template": "Hello"}))}
    answer = await control.client.post("/functions?wait=false", data={"name": "page"}, files=archive)
    build = answer.json()["id"]

    async def released() -> bool:
        return any(each.runtime == "template" for each in await control.control.queue.waiting())

    await until(released)
    await until(lambda: _is_not_running(unable, build))
    await able.control.registry.delete_drain(id_of(able))
    await at(control, build, BuildState.READY, able)
    assert "this machine does not build template: it is left to one that does" in await log_of(control, build)


async def test_where_no_builder_has_a_runtime_it_is_said_which_there_are(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node")
    node = await builder.control.machine.node()
    python = tuple(name for name in node.builds or () if name.startswith("python"))
    lease = await control.control.registry.join(600)
    written = await control.control.registry.put_node(node.model_copy(update={"builds": python}), lease)
    await control.control.view.catch_up(written)
    body = {"name": "hello", "code": "x", "config": {"runtime": "node"}}
    problem = assert_problem(await control.client.post("/functions", json=body), 422, "invalid")
    assert problem["field"] == "config.runtime"
    assert f"{node.host} ({node.id})" in problem["detail"]
    assert "apt-get install" in problem["detail"]


async def test_a_machine_with_all_roles_builds_what_it_is_given(cluster: Cluster) -> None:
    complete = await cluster.add("a", "all")
    await cluster.add("b", "builder,node")
    made = await complete.create()
    assert (await at(complete, made["build"], BuildState.READY)).node == id_of(complete)


async def test_that_a_machine_builds_is_listed_and_kept_where_older_versions_do_not_read_it(
    cluster: Cluster,
) -> None:
    builder = await cluster.add("b", "builder,node")
    (listed,) = (await builder.client.get("/nodes")).json()
    assert listed["roles"] == ["node", "builder"]
    kept = await builder.store.get(f"/nodes/{id_of(builder)}")
    assert kept is not None
    assert json.loads(kept.value)["roles"] == ["node"]


async def test_deploys_that_have_not_ended_are_counted(cluster: Cluster) -> None:
    control = await cluster.add("c", "gateway,control")
    builder = await cluster.add("b", "builder,node", max_builds=1)
    async with loading_at(builder):
        builds = [await begin(control, name) for name in ("one", "two")]
        await at(control, builds[0], BuildState.LOADING)
        text = (await control.client.get("/metrics")).text
        assert 'martlet_builds{state="building"} 1.0' in text
        assert 'martlet_builds{state="waiting"} 1.0' in text
    await at(control, builds[1], BuildState.READY)
