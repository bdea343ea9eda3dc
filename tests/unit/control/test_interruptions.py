"""Control is killed at every step of every change: what is left is what was before, or what was asked for."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from martlet.bucket import Bucket
from martlet.control.deployments import MOST_ATTEMPTS
from martlet.model import BuildState
from martlet.storage.blobs import Blobs
from martlet.storage.store import Change, Entry, Lease, Store, StoreError
from tests.unit.control.conftest import FakeLane, Platform, assert_problem, running, zipped

pytestmark = pytest.mark.anyio


class MortalStore:
    """A store that takes so many more writes, and then is out of reach for whoever holds this object."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store = store
        self.writes = writes

    def _write(self) -> None:
        if self.writes == 0:
            raise StoreError("killed")
        self.writes -= 1

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        return await self._store.list(prefix)

    async def put(self, key: str, value: bytes, **conditions: Any) -> int:
        self._write()
        return await self._store.put(key, value, **conditions)

    async def delete(self, key: str, **conditions: Any) -> int | None:
        self._write()
        return await self._store.delete(key, **conditions)

    def watch(self, prefix: str, since: int) -> AsyncIterator[Change]:
        return self._store.watch(prefix, since)

    async def lease(self, ttl: float) -> Lease:
        return await self._store.lease(ttl)

    async def revision(self) -> int:
        return await self._store.revision()

    async def close(self) -> None:
        pass


async def change(platform: Platform, what: str) -> None:
    client = platform.client
    match what:
        case "create":
            await client.post("/functions", json={"name": "new", "code": "def handle(r): return 1"})
        case "update":
            await client.put("/functions/hello", json={"code": "def handle(r): return 3"})
        case "rollback":
            await client.post("/functions/hello/rollback", json={"revision": 1})
        case "delete":
            await client.delete("/functions/hello")
        case "alias":
            await client.put("/functions/hello/aliases/live", json={"weights": {"1": 50, "2": 50}})


async def check(platform: Platform) -> dict[str, int]:
    """Checks that what the store holds fits together; returns which revision of each function serves."""
    for build in (await platform.client.get("/builds")).json():
        await platform.client.get(f"/builds/{build['id']}/logs")  # ends with the build
    await platform.control.garbage.close()
    view = await platform.view()
    for function in view.functions.values():
        assert (function.name, function.latest) in view.revisions
        assert function.counter >= max(number for name, number in view.revisions if name == function.name)
    for name, aliases in view.aliases.items():
        assert name in view.functions
        for alias in aliases.values():
            assert all((name, number) in view.revisions for number in alias.weights)
    for (name, _), revision in view.revisions.items():
        assert name in view.functions
        assert await platform.blobs.exists("packages", revision.code)
    for build in (await platform.client.get("/builds")).json():
        assert build["state"] in (BuildState.READY, BuildState.FAILED)
        assert build["finished"] is not None
    assert list(platform.control.uploads.iterdir()) == []
    return {function.name: function.latest for function in view.functions.values()}


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [
        ("create", {"hello": 2}, {"hello": 2, "new": 1}),
        ("update", {"hello": 2}, {"hello": 3}),
        ("rollback", {"hello": 2}, {"hello": 1}),
        ("delete", {"hello": 2}, {}),
        ("alias", {"hello": 2}, {"hello": 2}),
    ],
)
async def test_a_change_that_is_cut_off_anywhere_has_happened_or_has_not(
    tmp_path: Path, what: str, before: dict[str, int], after: dict[str, int]
) -> None:
    outcomes = []
    for writes in range(12):
        folder = tmp_path / str(writes)
        folder.mkdir()
        platform = Platform(folder)
        async with running(platform):
            await platform.create(code="def handle(r): return 1")
            await platform.client.put("/functions/hello", json={"code": "def handle(r): return 2"})
            await platform.stop()
            store = platform.store
            mortal = MortalStore(store, 10**9)
            platform.store = mortal
            await platform.start()
            mortal.writes = writes
            await change(platform, what)
            survived = mortal.writes > 0
            await platform.stop()
            platform.store = store
            await platform.start()
            outcome = await check(platform)
            outcomes.append(outcome)
            await change(platform, what)  # whatever was left, it can be done again
            assert set(await check(platform)) == set(after) | (set(outcome) & set(after))
            if what == "delete":
                assert await check(platform) == {}
        if survived:
            break
    assert survived
    # A deploy that is taken up again gets a number of its own: it has happened with this one or the next.
    happened = [after, {**after, "hello": 4}] if what == "update" else [after]
    changed = next(index for index, outcome in enumerate(outcomes) if outcome in happened)
    assert outcomes[:changed] == [before] * changed
    assert all(outcome in happened for outcome in outcomes[changed:])
    assert outcomes[-1] == after
    assert before == after or changed > 0


async def begin(platform: Platform) -> dict[str, Any]:
    """Begins a deploy that hangs while it loads; returns its build."""
    lane: FakeLane = platform.lanes[0]
    lane.hold.clear()
    lane.loading.clear()
    body = {"name": "new", "code": "x = 1", "config": {"timeout": 7}}
    build: dict[str, Any] = (await platform.client.post("/functions?wait=false", json=body)).json()
    await lane.loading.wait()
    return build


async def ended(platform: Platform, build: dict[str, Any]) -> dict[str, Any]:
    """Waits for the end of a build and returns it, with its log."""
    log = (await platform.client.get(f"/builds/{build['id']}/logs")).text
    return {**(await platform.client.get(f"/builds/{build['id']}")).json(), "log": log}


async def kill(platform: Platform) -> None:
    """Ends control so that nothing more of this life is written."""
    store = platform.store
    platform.control.registry._store = MortalStore(store, 0)
    await platform.stop()


async def test_a_build_that_was_under_way_when_control_was_killed_is_taken_up_again(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        build = await begin(platform)
        await kill(platform)
        platform.lanes[0].hold.set()
        await platform.start()
        found = await ended(platform, build)
        assert (found["state"], found["phase"], found["revision"]) == ("ready", "ready", 1)
        assert found["log"].count("loading new@1") == 2, "the log goes on"
        assert "this is attempt 2 of 3" in found["log"]
        served = (await platform.client.get("/functions/new")).json()
        assert served["config"]["timeout"] == 7
        work = platform.control.settings.system.function_storage_path / "builds" / build["id"] / "work"
        assert not work.exists()
        assert await platform.blobs.list("uploads") == []
        assert await platform.control.registry.list_waiting() == []


async def test_a_stop_leaves_the_builds_under_way_to_the_next_start(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        build = await begin(platform)
        for _ in range(MOST_ATTEMPTS):  # which is no fault of the build's
            await platform.stop()
            platform.lanes[0].loading.clear()
            platform.lanes[0].hold.clear()
            await platform.start()
            await platform.lanes[0].loading.wait()
        platform.lanes[0].hold.set()
        found = await ended(platform, build)
        assert found["state"] == "ready"
        assert found["log"].count("this is attempt 1 of 3") == MOST_ATTEMPTS


async def test_an_archive_is_taken_up_again_too(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        platform.lanes[0].hold.clear()
        form = {
            "data": {"name": "new"},
            "files": {"archive": zipped({"handler.py": "x = 1", "other.py": "y = 2"})},
        }
        build = (await platform.client.post("/functions?wait=false", **form)).json()
        await platform.lanes[0].loading.wait()
        await kill(platform)
        platform.lanes[0].hold.set()
        await platform.start()
        assert (await ended(platform, build))["state"] == "ready"
        assert list(platform.control.uploads.iterdir()) == []


async def test_an_upload_that_is_out_of_reach_after_a_restart_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    platform = Platform(tmp_path)
    async with running(platform):
        build = await begin(platform)
        await kill(platform)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            platform.blobs = Blobs.s3(Bucket("gone", "", endpoint), request_seconds=1, retry_seconds=1)
            await platform.start()
            found = await ended(platform, build)
            assert found["state"] == "failed"
            assert "out of its reach; deploy it again" in found["error"]
            assert await platform.control.registry.list_waiting() == []
            refused = await platform.client.post("/functions", json={"name": "other", "code": "x = 1"})
            assert_problem(refused, 503, "unavailable")


async def test_a_build_that_ends_control_again_and_again_fails(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        build = await begin(platform)
        for _ in range(2):
            await kill(platform)
            platform.lanes[0].loading.clear()
            await platform.start()
            await platform.lanes[0].loading.wait()
        await kill(platform)
        await platform.start()
        found = await ended(platform, build)
        assert found["state"] == "failed"
        assert "ended 3 times" in found["error"]
        assert (await platform.client.get("/functions/new")).status_code == 404
        assert await platform.blobs.list("uploads") == []


async def test_a_cancelled_build_changes_nothing_and_is_not_taken_up_again(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        build = await begin(platform)
        cancelled = (await platform.client.delete(f"/builds/{build['id']}")).json()
        assert (cancelled["state"], cancelled["phase"]) == ("cancelled", "initializing_failed")
        assert_problem(await platform.client.delete(f"/builds/{build['id']}"), 409, "conflict")
        assert (await platform.client.get("/functions/new")).status_code == 404
        platform.lanes[0].hold.set()
        await platform.stop()
        await platform.start()
        assert (await ended(platform, build))["state"] == "cancelled"
        assert await platform.blobs.list("uploads") == []


async def test_whoever_waits_for_a_build_is_told_that_it_was_cancelled(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        platform.lanes[0].hold.clear()
        waiting = asyncio.create_task(
            platform.client.post("/functions", json={"name": "new", "code": "x = 1"})
        )
        await platform.lanes[0].loading.wait()
        (build,) = (await platform.client.get("/builds")).json()
        assert (build["state"], build["phase"]) == ("loading", "initializing")
        await platform.client.delete(f"/builds/{build['id']}")
        assert "cancelled" in assert_problem(await waiting, 422, "build_failed")["detail"]
        platform.lanes[0].hold.set()
