"""What the etcd store does beyond what every `Store` does: it is lost, comes back, asks for passwords."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.storage.etcd.store import EtcdStore
from martlet.storage.store import Change, Compacted, StoreError
from martlet.store_address import EtcdAddress
from tests.etcd import Cluster

pytestmark = pytest.mark.anyio

BOUND = 40
"""Seconds within which every call has ended, with what a busy machine adds to the five to seven that it may take."""


class Proxy:
    """Stands between a client and a member: it cuts connections, or lets nothing more through."""

    def __init__(self, member: str) -> None:
        self._member = member.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cuts: list[int] = []  # after how many bytes of answers the next connections are cut
        self.losing = False  # the next answer, with its connection
        self.endpoint = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.flowing.set()
            server.close()
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self.cuts.pop() if self.cuts else None
        self._writers.append(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection(self._member[0], int(self._member[2]))
        except OSError:
            writer.close()
            return
        self._writers.append(there_writer)
        ways = (self._pass(reader, there_writer, None), self._pass(there_reader, writer, limit, back=True))
        await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limit: int | None,
        back: bool = False,
    ) -> None:
        try:
            while piece := await reader.read(65536):
                await self.flowing.wait()
                if back and self.losing:
                    self.losing = False
                    break
                writer.write(piece if limit is None else piece[:limit])
                await writer.drain()
                if limit is not None:
                    limit -= len(piece)
                    if limit <= 0:
                        break
        finally:
            writer.close()


def prefix() -> str:
    return f"/{uuid4().hex}"


@asynccontextmanager
async def opened(address: EtcdAddress) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(address)
    try:
        yield store
    finally:
        await store.close()


async def collected(changes: AsyncIterator[Change], count: int) -> list[Change]:
    async with asyncio.timeout(60):
        return [await anext(changes) for _ in range(count)]


async def until_written(store: EtcdStore, key: str, value: bytes) -> int:
    """Writes when the store is there again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.put(key, value)
            except StoreError:
                await asyncio.sleep(0.1)


async def assert_out_of_reach(store: EtcdStore) -> None:
    """Every call fails, and none takes long."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("/a"),
        lambda: store.list("/"),
        lambda: store.put("/a", b""),
        lambda: store.delete("/a"),
        lambda: store.revision(),
        lambda: store.lease(10),
        lambda: anext(store.watch("/", 10**9)),
    ]

    async def fails(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(StoreError):
            await call()

    async with asyncio.timeout(BOUND):
        await asyncio.gather(*map(fails, calls))


async def test_prefixes_that_begin_alike_are_strangers(etcd: Cluster) -> None:
    ours = prefix()
    async with (
        opened(EtcdAddress(etcd.endpoints, ours)) as store,
        opened(EtcdAddress(etcd.endpoints, f"{ours}2")) as other,
    ):
        written = await store.put("/a", b"ours")
        await other.put("/a", b"theirs")
        entries, _ = await store.list("")
        assert [(entry.key, entry.value) for entry in entries] == [("/a", b"ours")]
        assert await store.revision() == written


@pytest.mark.parametrize("key", ["", "/", "a"])
async def test_a_key_is_below_the_prefix(etcd: Cluster, key: str) -> None:
    async with opened(EtcdAddress(etcd.endpoints, prefix())) as store:
        with pytest.raises(ValueError, match="slash"):
            await store.put(key, b"")


async def test_a_list_of_many_pages_is_of_one_moment(etcd: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.storage.etcd.store.PAGE", 3)
    async with opened(EtcdAddress(etcd.endpoints, prefix())) as store:
        for number in range(10):
            await store.put(f"/{number}", b"old")
        reading = asyncio.create_task(store.list("/"))
        await asyncio.gather(*(store.put(f"/{number}", b"new") for number in range(10)))
        entries, revision = await reading
        assert [entry.key for entry in entries] == [f"/{number}" for number in range(10)]
        assert max(entry.revision for entry in entries) <= revision
        changed = store.watch("/", revision)
        late = sum(entry.value == b"old" for entry in entries)
        assert len(await collected(changed, late)) == late
        await changed.aclose()


async def test_large_changes_come_whole_and_in_order(etcd: Cluster) -> None:
    async with opened(EtcdAddress(etcd.endpoints, prefix())) as store:
        start = await store.revision()
        for number in range(8):  # more than etcd puts into one message
            await store.put(f"/{number}", b"%d" % number * 500_000)
        changes = store.watch("/", start)
        seen = await collected(changes, 8)
        await changes.aclose()
        assert [(change.key, len(change.value or b"")) for change in seen] == [
            (f"/{number}", 500_000) for number in range(8)
        ]


async def test_one_revision_is_seen_whole_however_large(etcd: Cluster) -> None:
    async with opened(EtcdAddress(etcd.endpoints, prefix())) as store:
        lease = await store.lease(60)
        keys = [f"/{number:02}{'x' * 60_000}" for number in range(40)]
        for key in keys:
            await store.put(key, b"", lease=lease)
        start = await store.revision()
        await lease.revoke()
        changes = store.watch("/", start)
        seen = await collected(changes, len(keys))
        await changes.aclose()
        assert [(change.key, change.value, change.revision) for change in seen] == [
            (key, None, start + 1) for key in keys
        ]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 6000), max_size=8), size=st.integers(0, 600))
def test_a_watch_sees_every_change_once_wherever_it_is_cut(etcd: Cluster, cuts: list[int], size: int) -> None:
    async def run() -> None:
        where = prefix()
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(opened(EtcdAddress(etcd.endpoints, where)))
            proxy = await stack.enter_async_context(Proxy(etcd.endpoints[0]).listening())
            store = await stack.enter_async_context(opened(EtcdAddress((proxy.endpoint,), where)))
            start = await store.revision()
            lease = await writer.lease(60)
            await writer.put("/x", b"", lease=lease)
            await writer.put("/y", b"", lease=lease)
            await writer.put("/a", b"0" * size)
            await lease.revoke()  # two changes of one revision
            proxy.cuts = [*cuts]
            proxy.cut()
            changes = store.watch("/", start)
            seen = await collected(changes, 2)
            proxy.cut()
            for number in range(10):
                await writer.put("/a", b"%d" % number * size)
            seen += await collected(changes, 13)
            await changes.aclose()
        revisions = [change.revision - start for change in seen]
        assert revisions == [1, 2, 3, 4, 4, *range(5, 15)]
        assert [change.key for change in seen[3:5]] == ["/x", "/y"]

    asyncio.run(run())


async def test_a_member_that_falls_silent_is_left(etcd: Cluster) -> None:
    """Its connections stay open, and nothing comes through them any more."""
    where = prefix()
    async with Proxy(etcd.endpoints[0]).listening() as proxy:
        address = EtcdAddress((proxy.endpoint, *etcd.endpoints), where)
        async with opened(address) as store, opened(EtcdAddress(etcd.endpoints, where)) as writer:
            changes = store.watch("/", await store.revision())
            await writer.put("/a", b"1")
            assert [change.value for change in await collected(changes, 1)] == [b"1"]
            proxy.flowing.clear()
            await writer.put("/a", b"2")
            async with asyncio.timeout(BOUND):
                found = await store.get("/a")
                assert found is not None
                assert found.value == b"2"
                assert [change.value for change in await collected(changes, 1)] == [b"2"]
            await changes.aclose()


async def test_a_write_that_may_have_been_done_is_not_done_again(etcd: Cluster) -> None:
    where = prefix()
    async with Proxy(etcd.endpoints[0]).listening() as proxy:
        address = EtcdAddress((proxy.endpoint, *etcd.endpoints), where)
        async with opened(address) as store, opened(EtcdAddress(etcd.endpoints, where)) as other:
            start = await other.put("/n", b"0")
            proxy.losing = True
            with pytest.raises(StoreError):
                await store.put("/n", b"1")
            assert await other.revision() == start + 1
            assert await store.put("/n", b"2") == start + 2


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cluster]:
    """An etcd of the test's own."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def test_an_etcd_that_is_stopped_and_started_is_found_again(alone: Cluster) -> None:
    (member,) = alone.members
    async with opened(EtcdAddress(alone.endpoints)) as store:
        changes = store.watch("/", await store.revision())
        await store.put("/a", b"1")
        assert [change.value for change in await collected(changes, 1)] == [b"1"]
        waiting = asyncio.create_task(collected(changes, 1))
        member.kill()
        member.start(alone.names)
        await until_written(store, "/a", b"2")
        assert [change.value for change in await waiting] == [b"2"]
        await changes.aclose()


async def test_an_etcd_that_is_frozen_keeps_nobody_waiting(alone: Cluster) -> None:
    (member,) = alone.members
    async with opened(EtcdAddress(alone.endpoints)) as store:
        member.signal(signal.SIGSTOP)
        await assert_out_of_reach(store)
        member.signal(signal.SIGCONT)
        await until_written(store, "/b", b"1")


async def test_a_watch_that_was_away_too_long_says_so(alone: Cluster) -> None:
    async with (
        Proxy(alone.endpoints[0]).listening() as proxy,
        opened(EtcdAddress((proxy.endpoint,))) as store,
        opened(EtcdAddress(alone.endpoints)) as writer,
    ):
        start = await store.revision()
        changes = store.watch("/", start)
        await writer.put("/a", b"1")
        await collected(changes, 1)
        proxy.flowing.clear()
        for _ in range(3):
            await writer.put("/a", b"2")
        last = await writer.put("/b", b"")
        alone.compact(last)
        proxy.cut()
        proxy.flowing.set()
        with pytest.raises(Compacted):
            await collected(changes, 5)


async def test_an_etcd_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("martlet.storage.etcd.client.CALL_SECONDS", 1)
    with pytest.raises(StoreError, match=r"out of reach: 127\.0\.0\.1:1: "):
        await EtcdStore.open(EtcdAddress(("127.0.0.1:1",)))
