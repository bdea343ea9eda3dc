"""Builds: listed, described, read while they run and long after."""

import asyncio
import json

import pytest

from martlet.builder import build_records, builds
from martlet.control import elsewhere
from martlet.model import BuildState
from tests.unit.control.conftest import HANDLER, Platform, assert_problem, running

pytestmark = pytest.mark.anyio


def messages(log: str) -> list[str]:
    return [json.loads(event.removeprefix("data: "))["message"] for event in log.split("\n\n") if event]


async def test_builds_are_listed_newest_first_of_all_functions_or_of_one(platform, client):
    for name in ("a", "b"):
        await platform.create(name)
    await client.put("/functions/a", json={"code": "def handle(r): return 2"})
    listed = (await client.get("/builds")).json()
    assert [(one["function"], one["revision"]) for one in listed] == [("a", 2), ("b", 1), ("a", 1)]
    assert [one["revision"] for one in (await client.get("/builds?function=a")).json()] == [2, 1]
    assert (await client.get("/builds?function=c")).json() == []
    assert_problem(await client.get("/builds?function=Not A Name"), 422, "invalid")
    assert (await client.get(f"/builds/{listed[0]['id']}")).json() == listed[0]


async def test_a_build_that_is_not_there_is_not_found(client):
    for path in ("/builds/nothing", "/builds/nothing/logs"):
        assert_problem(await client.get(path), 404, "not_found")


async def test_the_log_of_a_build_can_be_read_after_a_restart(platform):
    made = await platform.create()
    url = f"/builds/{made['build']}/logs"
    before = messages((await platform.client.get(url)).text)
    assert before[-1] == "hello@1 serves"
    await platform.stop()
    await platform.start()
    assert messages((await platform.client.get(url)).text) == before
    assert (await platform.client.get(f"/builds/{made['build']}")).json()["state"] == "ready"


async def test_a_build_of_another_machine_is_found_and_followed_to_its_end(platform, client, monkeypatch):
    monkeypatch.setattr(elsewhere, "LOOK", 0.01)
    theirs, registry = builds.new_build("hello", "b-theirs"), platform.control.registry
    await registry.put_build(theirs)
    assert (await client.get("/builds/b-theirs")).json()["state"] == "queued"
    following = asyncio.create_task(client.get("/builds/b-theirs/logs"))
    done, _ = await asyncio.wait([following], timeout=0.1)
    assert not done
    await registry.put_build(theirs.model_copy(update={"state": BuildState.READY, "finished": 2e9}))
    async with asyncio.timeout(60):
        assert messages((await following).text) == []
    assert (await client.get("/builds/b-theirs")).json()["state"] == "ready"
    assert_problem(await client.delete("/builds/b-theirs"), 409, "conflict")


async def test_old_builds_are_forgotten_with_their_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(build_records, "BUILDS_KEPT", 3)
    async with running(Platform(tmp_path)) as platform:
        made = await platform.create()
        for number in range(4):
            await platform.client.put("/functions/hello", json={"code": f"def handle(r): return {number}"})
        listed = (await platform.client.get("/builds")).json()
        assert [one["revision"] for one in listed] == [5, 4, 3]
        assert_problem(await platform.client.get(f"/builds/{made['build']}"), 404, "not_found")
        folder = platform.settings.system.function_storage_path / "builds"
        assert {path.name for path in folder.iterdir()} == {one["id"] for one in listed}
        assert {build.id for build in await platform.control.registry.list_builds()} == {
            one["id"] for one in listed
        }


async def test_a_fault_inside_fails_the_build_and_tells_nothing_of_it(platform, client, monkeypatch):
    async def broken(*_: object) -> None:
        raise RuntimeError("secret of the platform")

    monkeypatch.setattr(platform.control.lanes, "load", broken)
    problem = assert_problem(
        await client.post("/functions", json={"name": "x", "code": HANDLER}), 500, "internal"
    )
    assert "secret" not in json.dumps(problem)
    (build,) = (await client.get("/builds")).json()
    assert build["state"] == "failed"
    assert "secret" not in json.dumps(build)
