"""What every `Store` does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from martlet.storage.etcd.store import EtcdStore
from martlet.storage.memory import MemoryStore
from martlet.storage.sqlite import SqliteStore
from martlet.storage.store import (
    Change,
    Compacted,
    Entry,
    Guard,
    GuardLost,
    LeaseExpired,
    RevisionMismatch,
    Store,
    StoreError,
)
from martlet.store_address import EtcdAddress
from tests.etcd import Cluster

pytestmark = pytest.mark.anyio

KEPT = 20
"""Changes that the stores under test keep."""

Connect = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens a store; called again, it opens the same data as another client does."""
    opened: list[Store] = []
    if request.param == "etcd":
        cluster: Cluster = request.getfixturevalue("etcd")
        address = EtcdAddress(cluster.endpoints, f"/{uuid4().hex}")

    async def connect() -> Store:
        if request.param == "etcd":
            opened.append(await EtcdStore.open(address))
        elif request.param == "sqlite":
            opened.append(await SqliteStore.open(tmp_path / "store.db", changes_kept=KEPT))
        elif not opened:
            opened.append(MemoryStore(changes_kept=KEPT))
        return opened[-1]

    yield connect
    for store in opened:
        await store.close()


@pytest.fixture
async def store(connect: Connect) -> Store:
    return await connect()


@pytest.fixture
async def start(connect: Connect) -> int:
    """The store revision before the test; 0 in a store that nobody else has."""
    return await (await connect()).revision()


@pytest.fixture
def compact(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Lets a store that keeps all changes until it is told forget those up to a store revision."""
    if request.node.callspec.params["connect"] == "etcd":
        cluster: Cluster = request.getfixturevalue("etcd")
        return cluster.compact
    return lambda revision: None


async def following(changes: AsyncIterator[Change], count: int) -> list[Change]:
    async with asyncio.timeout(60):
        return [await anext(changes) for _ in range(count)]


async def test_get_returns_what_was_put(store: Store) -> None:
    revision = await store.put("/a", b"1")
    assert await store.get("/a") == Entry("/a", b"1", revision)


async def test_get_of_an_unknown_key_is_none(store: Store) -> None:
    assert await store.get("/a") is None


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"x" * 300_000])
async def test_values_are_any_bytes(store: Store, value: bytes) -> None:
    await store.put("/a", value)
    entry = await store.get("/a")
    assert entry is not None
    assert entry.value == value


async def test_put_replaces(store: Store) -> None:
    await store.put("/a", b"1")
    revision = await store.put("/a", b"2")
    assert await store.get("/a") == Entry("/a", b"2", revision)


async def test_every_change_has_the_next_revision(store: Store, start: int) -> None:
    written = [await store.put("/a", b"1"), await store.put("/b", b"2"), await store.delete("/a")]
    assert written == [start + 1, start + 2, start + 3]
    assert await store.revision() == start + 3


async def test_revisions_go_on_when_everything_is_deleted(store: Store, start: int) -> None:
    await store.put("/a", b"")
    await store.delete("/a")
    assert await store.put("/a", b"") == start + 3


async def test_delete_removes_the_key_once(store: Store, start: int) -> None:
    await store.put("/a", b"1")
    assert await store.delete("/a") == start + 2
    assert await store.get("/a") is None
    assert await store.delete("/a") is None
    assert await store.revision() == start + 2


async def test_list_returns_the_prefix_in_order_with_the_revision(store: Store, start: int) -> None:
    for key in ("/f/b", "/f/a", "/g/a", "/e/z"):
        await store.put(key, key.encode())
    entries, revision = await store.list("/f/")
    assert [(entry.key, entry.value, entry.revision) for entry in entries] == [
        ("/f/a", b"/f/a", start + 2),
        ("/f/b", b"/f/b", start + 1),
    ]
    assert revision == start + 4


async def test_a_prefix_ends_where_it_ends(store: Store) -> None:
    keys = ["/f", "/f/", "/f/a", "/f/é", "/f/\U0001f600", "/f0", "/fa", "/F/a", "/f-/a"]
    for key in keys:
        await store.put(key, b"")
    entries, _ = await store.list("/f/")
    assert [entry.key for entry in entries] == ["/f/", "/f/a", "/f/é", "/f/\U0001f600"]
    everything, _ = await store.list("")
    assert [entry.key for entry in everything] == sorted(keys)


async def test_a_prefix_is_no_pattern(store: Store) -> None:
    await store.put("/f/%", b"")
    await store.put("/f/_a", b"")
    await store.put("/f/ba", b"")
    assert [entry.key for entry in (await store.list("/f/_"))[0]] == ["/f/_a"]
    assert [entry.key for entry in (await store.list("/f/%"))[0]] == ["/f/%"]


async def test_expect_revision_zero_creates_only(store: Store) -> None:
    written = await store.put("/a", b"1", expect_revision=0)
    with pytest.raises(RevisionMismatch) as caught:
        await store.put("/a", b"2", expect_revision=0)
    assert (caught.value.expected, caught.value.actual) == (0, written)
    assert await store.get("/a") == Entry("/a", b"1", written)
    assert await store.revision() == written


async def test_expect_revision_guards_put_and_delete(store: Store) -> None:
    first = await store.put("/a", b"1")
    second = await store.put("/a", b"2", expect_revision=first)
    with pytest.raises(RevisionMismatch):
        await store.put("/a", b"3", expect_revision=first)
    with pytest.raises(RevisionMismatch):
        await store.delete("/a", expect_revision=first)
    assert await store.delete("/a", expect_revision=second) == second + 1
    with pytest.raises(RevisionMismatch):
        await store.delete("/a", expect_revision=second)
    assert await store.delete("/a", expect_revision=0) is None
    assert await store.revision() == second + 1


async def test_a_guard_lets_nobody_write_who_has_lost_it(connect: Connect) -> None:
    one, other = await connect(), await connect()
    mine = Guard("/leader", await one.put("/leader", b"one"))
    first = await one.put("/a", b"1", guard=mine)
    assert await one.put("/a", b"2", expect_revision=first, guard=mine) == first + 1
    with pytest.raises(RevisionMismatch):
        await one.put("/a", b"3", expect_revision=first, guard=mine)
    theirs = Guard("/leader", await other.put("/leader", b"other"))
    for write in (one.put("/a", b"late", guard=mine), one.put("/new", b"late", guard=mine)):
        with pytest.raises(GuardLost):
            await write
    for key in ("/a", "/nothing"):
        with pytest.raises(GuardLost):
            await one.delete(key, guard=mine)
    assert [entry.value for entry in (await other.list("/"))[0]] == [b"2", b"other"]
    assert await other.delete("/nothing", guard=theirs) is None
    assert await other.delete("/a", guard=theirs) == theirs.revision + 1
    await other.delete("/leader")
    with pytest.raises(GuardLost):
        await other.put("/a", b"gone", guard=theirs)


async def test_one_of_many_racing_writers_wins(connect: Connect) -> None:
    stores = [await connect(), await connect()]
    base = await stores[0].put("/a", b"")

    async def attempt(number: int) -> bool:
        try:
            await stores[number % 2].put("/a", b"%d" % number, expect_revision=base)
        except RevisionMismatch:
            return False
        return True

    assert sum(await asyncio.gather(*map(attempt, range(20)))) == 1


async def test_increments_of_concurrent_clients_are_all_counted(connect: Connect, start: int) -> None:
    async def add(store: Store, times: int) -> None:
        while times:
            entry = await store.get("/n")
            number, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            try:
                await store.put("/n", b"%d" % (number + 1), expect_revision=revision)
            except RevisionMismatch:
                continue
            times -= 1

    store = await connect()
    await asyncio.gather(add(store, 25), add(await connect(), 25))
    entry = await store.get("/n")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"50", start + 50)


async def test_watch_yields_changes_in_order(store: Store, start: int) -> None:
    changes = store.watch("/", await store.revision())
    await store.put("/a", b"1")
    await store.put("/b", b"2")
    await store.delete("/a")
    assert await following(changes, 3) == [
        Change("/a", b"1", start + 1),
        Change("/b", b"2", start + 2),
        Change("/a", None, start + 3),
    ]
    await changes.aclose()


async def test_watch_sees_what_other_clients_write_while_it_waits(connect: Connect, start: int) -> None:
    watched, written = await connect(), await connect()
    changes = watched.watch("/", start)
    for number in range(3):
        waiting = asyncio.ensure_future(following(changes, 1))
        await asyncio.sleep(0)  # the watch has begun to wait
        await written.put("/a", b"%d" % number)
        assert await waiting == [Change("/a", b"%d" % number, start + number + 1)]
    await changes.aclose()


async def test_watch_resumes_where_it_was_left(store: Store, start: int) -> None:
    for number in range(6):
        await store.put("/a", b"%d" % number)
    changes = store.watch("/", start)
    seen = (await following(changes, 3))[-1].revision
    await changes.aclose()
    changes = store.watch("/", seen)
    assert [change.revision - start for change in await following(changes, 3)] == [4, 5, 6]
    await changes.aclose()


async def test_watch_is_limited_to_its_prefix(store: Store, start: int) -> None:
    changes = store.watch("/f/", start)
    for key in ("/f/a", "/fa", "/g", "/f/b"):
        await store.put(key, b"")
    assert [change.key for change in await following(changes, 2)] == ["/f/a", "/f/b"]
    await changes.aclose()


async def test_every_watcher_sees_every_change(connect: Connect, start: int) -> None:
    stores = [await connect(), await connect()]
    watches = [store.watch("/", start) for store in stores for _ in range(3)]
    collecting = [asyncio.ensure_future(following(watch, 10)) for watch in watches]
    for number in range(10):
        await stores[number % 2].put("/a", b"%d" % number)
    for seen in await asyncio.gather(*collecting):
        assert [change.revision - start for change in seen] == list(range(1, 11))
    for watch in watches:
        await watch.aclose()


async def test_watch_from_a_list_misses_and_repeats_nothing(connect: Connect) -> None:
    store, writer = await connect(), await connect()

    async def write() -> None:
        for number in range(KEPT):
            await writer.put(f"/{number}", b"")

    writing = asyncio.ensure_future(write())
    entries, revision = await store.list("/")
    changes = store.watch("/", revision)
    seen = [entry.key for entry in entries]
    seen += [change.key for change in await following(changes, KEPT - len(seen))]
    assert sorted(seen) == sorted(f"/{number}" for number in range(KEPT))
    await writing
    await changes.aclose()


async def test_watch_of_compacted_changes_says_so(
    store: Store, start: int, compact: Callable[[int], None]
) -> None:
    for _ in range(KEPT + 5):
        await store.put("/a", b"")
    compact(start + 5)
    with pytest.raises(Compacted) as caught:
        await anext(store.watch("/", start + 4))
    assert (caught.value.since, caught.value.oldest) == (start + 4, start + 6)
    changes = store.watch("/", start + 5)
    assert len(await following(changes, KEPT)) == KEPT
    await changes.aclose()


async def test_a_quiet_prefix_does_not_fall_behind(
    store: Store, start: int, compact: Callable[[int], None]
) -> None:
    changes = store.watch("/quiet/", start)
    waiting = asyncio.ensure_future(following(changes, 1))
    await store.put("/quiet/first", b"")
    assert [change.key for change in await waiting] == ["/quiet/first"], "it has begun"
    waiting = asyncio.ensure_future(following(changes, 1))
    for _ in range(3 * KEPT):
        await store.put("/loud", b"")
        await asyncio.sleep(0)  # the watch has its turn
    compact(await store.revision())
    await store.put("/quiet/a", b"")
    assert [change.key for change in await waiting] == ["/quiet/a"]
    await changes.aclose()


async def test_keys_of_a_lease_vanish_when_it_is_not_kept_alive(connect: Connect, start: int) -> None:
    store, other = await connect(), await connect()
    lease = await store.lease(1.5)  # in which both keys are written, however busy the machine is
    changes = other.watch("/", start)
    await store.put("/kept", b"")
    await store.put("/b", b"", lease=lease)
    await store.put("/a", b"", lease=lease)
    assert [(change.key, change.value) for change in await following(changes, 5)] == [
        ("/kept", b""),
        ("/b", b""),
        ("/a", b""),
        ("/a", None),
        ("/b", None),
    ]
    assert [entry.key for entry in (await store.list("/"))[0]] == ["/kept"]
    with pytest.raises(LeaseExpired):
        await lease.keep_alive()
    with pytest.raises(LeaseExpired):
        await store.put("/c", b"", lease=lease)
    assert await store.get("/c") is None
    await changes.aclose()


async def test_a_lease_kept_alive_outlives_its_ttl(store: Store) -> None:
    lease = await store.lease(3)
    await store.put("/a", b"", lease=lease)
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.2 * lease.ttl
    while loop.time() < end:
        await lease.keep_alive()
        await asyncio.sleep(0.02)
    assert await store.get("/a") is not None


async def test_a_revoked_lease_takes_its_keys_at_once(store: Store) -> None:
    lease = await store.lease(60)
    await store.put("/a", b"", lease=lease)
    await lease.revoke()
    assert await store.get("/a") is None
    await lease.revoke()
    with pytest.raises(LeaseExpired):
        await lease.keep_alive()


async def test_a_key_written_again_leaves_its_lease(store: Store) -> None:
    first, second = await store.lease(60), await store.lease(60)
    await store.put("/free", b"1", lease=first)
    await store.put("/free", b"2")
    await store.put("/moved", b"1", lease=first)
    await store.put("/moved", b"2", lease=second)
    await store.put("/deleted", b"", lease=first)
    await store.delete("/deleted")
    revision = await store.revision()
    await first.revoke()
    assert await store.revision() == revision
    await second.revoke()
    assert [entry.key for entry in (await store.list("/"))[0]] == ["/free"]


async def test_a_lease_may_be_used_through_another_client(connect: Connect) -> None:
    lease = await (await connect()).lease(60)
    other = await connect()
    await other.put("/a", b"", lease=lease)
    await lease.revoke()
    assert await other.get("/a") is None


async def test_closing_ends_watches_and_refuses_more(store: Store) -> None:
    changes = store.watch("/", await store.revision())
    waiting = asyncio.ensure_future(anext(changes, None))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(60):
        assert await waiting is None
    for attempt in (store.get("/a"), store.put("/a", b""), store.list("/"), store.revision(), store.lease(1)):
        with pytest.raises(StoreError, match="closed"):
            await attempt
    await store.close()
