"""Control is killed at every step of every change: what is left is what was before, or what was asked for."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from martlet.model import BuildState
from martlet.storage.store import Change, Entry, Lease, Store, StoreError
from tests.unit.control.conftest import FakeLane, Platform, running

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

    async def put(
        self, key: str, value: bytes, *, expect_revision: int | None = None, lease: Any = None
    ) -> int:
        self._write()
        return await self._store.put(key, value, expect_revision=expect_revision, lease=lease)

    async def delete(self, key: str, *, expect_revision: int | None = None) -> int | None:
        self._write()
        return await self._store.delete(key, expect_revision=expect_revision)

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
    changed = outcomes.index(after) if before != after else 0
    assert outcomes[:changed] == [before] * changed
    assert all(outcome == after for outcome in outcomes[changed:])
    assert before == after or changed > 0


async def test_a_build_that_was_under_way_when_control_was_killed_has_failed(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        lane: FakeLane = platform.lanes[0]
        lane.hold.clear()
        build = (
            await platform.client.post("/functions?wait=false", json={"name": "new", "code": "x = 1"})
        ).json()
        await lane.loading.wait()
        store, control = platform.store, platform.control
        platform.store = MortalStore(store, 0)
        control.registry._store = platform.store  # killed: nothing more of this life is written
        await platform.stop()
        lane.hold.set()
        platform.store = store
        await platform.start()
        found = (await platform.client.get(f"/builds/{build['id']}")).json()
        assert (found["state"], found["error"]) == ("failed", "interrupted; deploy again")
        log = (await platform.client.get(f"/builds/{build['id']}/logs")).text
        assert "loading new@1" in log
        assert not (
            platform.control.settings.system.function_storage_path / "builds" / build["id"] / "work"
        ).exists()


async def test_a_stop_ends_the_builds_under_way_in_words(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    async with running(platform):
        lane = platform.lanes[0]
        lane.hold.clear()
        build = (
            await platform.client.post("/functions?wait=false", json={"name": "new", "code": "x = 1"})
        ).json()
        await lane.loading.wait()
        await platform.stop()
        await platform.start()
        found = (await platform.client.get(f"/builds/{build['id']}")).json()
        assert (found["state"], found["error"]) == ("failed", "interrupted; deploy again")
