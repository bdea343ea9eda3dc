import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from martlet.errors import Invalid, Unavailable
from martlet.model import (
    Alias,
    ApiKey,
    Build,
    BuildState,
    Drain,
    Function,
    FunctionConfig,
    Node,
    Revision,
)
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.sqlite import SqliteStore
from martlet.storage.store import StoreError

pytestmark = pytest.mark.anyio

HELLO = Function(name="hello", latest=1, counter=1, created=1.0, updated=1.0)
FIRST = Revision(function="hello", number=1, config=FunctionConfig(), code="a" * 64, created=1.0)
LIVE = Alias(function="hello", name="live", weights={1: 100})
KEY = ApiKey(id="k1", name="ci", scopes=frozenset(), hashes={"ab" * 32: None}, created=1.0)
NODE = Node(
    id="n1",
    host="one",
    address=None,
    version="1",
    rungs=(),
    runtimes=(),
    cores=1,
    memory=1,
    load=0.0,
    lanes=(),
    started=1.0,
)
BUILD = Build(id="b1", function="hello", state=BuildState.PACKING, started=1.0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(changes_kept=20)


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store)


@pytest.fixture
async def view(store: MemoryStore) -> AsyncIterator[RegistryView]:
    view = RegistryView(store)
    await view.start()
    yield view
    await view.close()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_view_starts_with_all_there_is(store: MemoryStore, registry: Registry) -> None:
    await registry.put_function(HELLO)
    await registry.put_revision(FIRST)
    await registry.put_alias(LIVE)
    await registry.put_key(KEY)
    await registry.put_build(BUILD)
    view = RegistryView(store)
    await view.start()
    assert view.functions == {"hello": HELLO}
    assert view.revisions == {("hello", 1): FIRST}
    assert view.aliases == {"hello": {"live": LIVE}}
    assert view.keys == {b"\xab" * 32: KEY}
    assert view.revision == 5
    await view.close()


async def test_a_view_follows_changes(registry: Registry, view: RegistryView) -> None:
    await registry.put_function(HELLO)
    await registry.put_revision(FIRST)
    await registry.put_alias(LIVE)
    await registry.put_key(KEY)
    await eventually(lambda: view.revision == 4)
    assert view.functions == {"hello": HELLO}
    assert view.revisions == {("hello", 1): FIRST}
    assert view.aliases == {"hello": {"live": LIVE}}
    assert view.keys == {b"\xab" * 32: KEY}
    await registry.delete_function("hello")
    await registry.delete_revision("hello", 1)
    await registry.delete_alias("hello", "live")
    await registry.delete_key("k1")
    await eventually(lambda: view.revision == 8)
    assert (view.functions, view.revisions, view.aliases, view.keys) == ({}, {}, {}, {})


async def test_a_rotated_key_has_other_digests(registry: Registry, view: RegistryView) -> None:
    old, both, new = ({"ab" * 32: None}, {"ab" * 32: 99.0, "cd" * 32: None}, {"cd" * 32: None})
    for hashes in (old, both, new):
        key = KEY.model_copy(update={"hashes": hashes})
        await view.catch_up(await registry.put_key(key))
        assert view.keys == {bytes.fromhex(digest): key for digest in hashes}


async def test_a_deleted_key_leaves_the_digest_to_another_key(registry: Registry, view: RegistryView) -> None:
    other = KEY.model_copy(update={"id": "k2"})
    await registry.put_key(KEY)
    await registry.put_key(other)
    await view.catch_up(await registry.delete_key("k1"))
    assert view.keys == {b"\xab" * 32: other}


async def test_changes_are_told_by_kind_and_name(registry: Registry, view: RegistryView) -> None:
    told: list[tuple[str, str]] = []
    view.on_change.append(lambda kind, name: told.append((kind, name)))
    await registry.put_revision(FIRST)
    await registry.put_function(HELLO)
    await registry.put_alias(LIVE)
    await registry.put_key(KEY)
    await registry.put_build(BUILD)
    await view.catch_up(await registry.delete_function("hello"))
    assert told == [
        ("revision", "hello"),
        ("function", "hello"),
        ("alias", "hello"),
        ("key", "k1"),
        ("function", "hello"),
    ]


async def test_a_callback_that_raises_stops_nobody(registry: Registry, view: RegistryView) -> None:
    told: list[str] = []

    def fail(_kind: str, _name: str) -> None:
        raise RuntimeError("no")

    view.on_change += [fail, lambda _kind, name: told.append(name)]
    await registry.put_function(HELLO)
    await view.catch_up(await registry.put_key(KEY))
    assert told == ["hello", "k1"]


async def test_catch_up_does_not_wait_for_the_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.storage.sqlite.POLL_SECONDS", 3600)
    mine, theirs = [await SqliteStore.open(tmp_path / "store.db") for _ in range(2)]
    view = RegistryView(mine)
    await view.start()
    async with asyncio.timeout(60):
        revision = await Registry(theirs).put_function(HELLO)
        await view.catch_up(revision)
        assert view.functions == {"hello": HELLO}
        await view.catch_up(await Registry(theirs).put_build(BUILD))
        await view.catch_up(revision)
    await view.close()
    await mine.close()
    await theirs.close()


async def test_catch_up_to_what_is_not_written_yet_is_refused(view: RegistryView) -> None:
    with pytest.raises(Invalid, match="the store is at 0, 1 is yet to come"):
        await view.catch_up(1)


async def test_every_change_is_applied_once_however_many_read(registry: Registry, view: RegistryView) -> None:
    told: list[str] = []
    view.on_change.append(lambda _kind, name: told.append(name))
    names = [f"f{number}" for number in range(15)]
    for name in names:
        revision = await registry.put_function(HELLO.model_copy(update={"name": name}))
    await asyncio.gather(*(view.catch_up(revision) for _ in range(5)))
    assert told == names


async def test_lookup_finds_what_memory_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.storage.sqlite.POLL_SECONDS", 3600)
    mine, theirs = [await SqliteStore.open(tmp_path / "store.db") for _ in range(2)]
    view = RegistryView(mine)
    await view.start()
    assert await view.lookup_function("hello") is None
    await Registry(theirs).put_revision(FIRST)
    await Registry(theirs).put_function(HELLO)
    assert await view.lookup_function("hello") == HELLO
    assert view.revisions == {("hello", 1): FIRST}
    await view.close()
    await mine.close()
    await theirs.close()


async def test_lookups_at_once_ask_the_store_once(
    store: MemoryStore, view: RegistryView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    read = store.revision

    async def counted() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return await read()

    monkeypatch.setattr(store, "revision", counted)
    assert set(await asyncio.gather(*(view.lookup_function(f"f{n}") for n in range(100)))) == {None}
    assert asked == 1


async def test_a_lookup_given_up_does_not_fail_the_others(view: RegistryView, registry: Registry) -> None:
    await registry.put_function(HELLO)
    first, second = (asyncio.ensure_future(view.lookup_function("hello")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == HELLO


async def test_a_lookup_without_a_store_is_unavailable(store: MemoryStore, view: RegistryView) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await view.lookup_function("hello")


async def test_a_view_that_fell_behind_reads_everything_again(
    registry: Registry, store: MemoryStore, view: RegistryView
) -> None:
    await registry.put_function(HELLO)
    await registry.put_key(KEY)
    await registry.put_alias(LIVE)
    await eventually(lambda: view.revision == 3)
    told: list[tuple[str, str]] = []
    view.on_change.append(lambda kind, name: told.append((kind, name)))
    newer = HELLO.model_copy(update={"latest": 2, "counter": 2})
    # None of these lets the view have its turn, so that it misses more than the store keeps.
    await registry.delete_alias("hello", "live")
    await registry.put_function(newer)
    for _ in range(50):
        await registry.put_build(BUILD)
    await view.catch_up(await store.revision())
    assert view.functions == {"hello": newer}
    assert view.aliases == {}
    assert view.keys == {b"\xab" * 32: KEY}
    assert sorted(told) == [("alias", "hello"), ("function", "hello")]
    await view.catch_up(await registry.delete_key("k1"))
    assert view.keys == {}


async def test_an_entry_that_is_not_understood_is_left_out(
    store: MemoryStore, registry: Registry, view: RegistryView
) -> None:
    await registry.put_function(HELLO)
    await store.put("/functions/hello", b'{"from": "the future"}')
    await store.put("/functions/broken", b"\xff")
    await store.put("/unknown/thing", b"{}")
    await view.catch_up(await registry.put_key(KEY))
    assert view.functions == {}
    assert view.keys == {b"\xab" * 32: KEY}


async def test_what_a_newer_version_has_written_besides_is_left_out(
    store: MemoryStore, registry: Registry, view: RegistryView
) -> None:
    document = orjson.loads(FIRST.model_dump_json())
    document["from"] = document["config"]["of"] = "the future"
    await store.put("/revisions/hello/00000001", orjson.dumps(document))
    await view.catch_up(1)
    assert view.revisions == {("hello", 1): FIRST}
    assert await registry.get_revision("hello", 1) == FIRST


async def test_nodes_that_are_drained_or_stop_withdraw(
    store: MemoryStore, registry: Registry, view: RegistryView
) -> None:
    told: list[set[str]] = []
    view.on_nodes.append(lambda: told.append(view.withdrawing))
    lease = await registry.join(60)
    await registry.put_node(NODE, lease)
    await registry.put_node(NODE.model_copy(update={"id": "n2", "stopping": True}), lease)
    await view.catch_up(await registry.put_drain(Drain(node="n1", since=1.0)))
    await lease.revoke()
    await eventually(lambda: not view.nodes)
    assert view.withdrawing == {"n1"}  # it is drained still when it comes back
    await view.catch_up(await registry.delete_drain("n1"))
    assert told[-1] == set()
    assert {"n1", "n2"} in told


async def test_a_view_follows_again_after_the_store_failed(
    store: MemoryStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("martlet.storage.view.RETRY_SECONDS", 0.001)
    watch, failures = store.watch, 0

    async def failing(prefix: str, since: int) -> AsyncIterator[object]:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise StoreError("out of reach")
        async for change in watch(prefix, since):
            yield change

    monkeypatch.setattr(store, "watch", failing)
    view = RegistryView(store)
    await view.start()
    await registry.put_function(HELLO)
    await eventually(lambda: view.functions)
    assert failures == 3
    await view.close()
