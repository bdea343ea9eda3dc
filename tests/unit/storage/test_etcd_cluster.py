"""The etcd store over a cluster of three: members are lost, and the majority."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from martlet.storage.etcd.store import EtcdStore
from martlet.storage.store import StoreError
from martlet.store_address import EtcdAddress
from tests.etcd import Cluster
from tests.unit.storage.test_etcd import assert_out_of_reach, collected, opened, prefix, until_written

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("etcd"), 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def cluster(members: Cluster) -> Iterator[Cluster]:
    """The cluster, whole again after each test."""
    yield members
    for member in members.members:
        member.kill()
        member.start(members.names)
    members.wait()


async def increments(store: EtcdStore, stop: asyncio.Event) -> tuple[int, int]:
    """Counts up in the store until told to stop; returns how often that was answered, and how often it was not."""
    done = lost = 0
    while not stop.is_set():
        try:
            entry = await store.get("/n")
            number, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            await store.put("/n", b"%d" % (number + 1), expect_revision=revision)
            done += 1
        except StoreError:
            lost += 1
        await asyncio.sleep(0.01)
    return done, lost


@pytest.mark.parametrize(
    ("leads", "how"), [(True, signal.SIGKILL), (False, signal.SIGKILL), (True, signal.SIGSTOP)]
)
async def test_a_member_that_is_lost_is_left_for_another(
    cluster: Cluster, leads: bool, how: signal.Signals
) -> None:
    leader = cluster.leader()
    lost = leader if leads else next(member for member in cluster.members if member is not leader)
    endpoints = sorted(cluster.endpoints, key=lambda endpoint: endpoint != lost.endpoint)
    async with opened(EtcdAddress(tuple(endpoints), prefix())) as store:
        lease = await store.lease(60)
        await store.put("/leased", b"", lease=lease)
        start = await store.revision()
        changes = store.watch("/n", start)
        stop = asyncio.Event()
        counting = asyncio.create_task(increments(store, stop))
        seen = await collected(changes, 3)
        lost.signal(how)
        seen += await collected(changes, 30)
        stop.set()
        done, lost_answers = await counting
        entry = await store.get("/n")
        assert entry is not None
        total = int(entry.value)
        assert done <= total <= done + lost_answers  # never what was answered
        seen += await collected(changes, total - len(seen))
        assert [int(change.value or b"") for change in seen] == list(range(1, total + 1))
        await lease.keep_alive()
        await changes.aclose()


async def test_without_a_majority_every_call_fails_soon_and_works_again_with_it(cluster: Cluster) -> None:
    async with opened(EtcdAddress(cluster.endpoints, prefix())) as store:
        await store.put("/a", b"1")
        start = await store.revision()
        changes = store.watch("/b", start)
        lost = [member for member in cluster.members if member is not cluster.leader()]
        for member in lost:
            member.kill()
        await assert_out_of_reach(store)
        with pytest.raises(StoreError):
            await collected(changes, 1)
        lost[0].start(cluster.names)
        await until_written(store, "/b", b"2")
        changes = store.watch("/b", start)
        assert [change.value for change in await collected(changes, 1)] == [b"2"]
        await changes.aclose()
