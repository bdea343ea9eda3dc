"""Of several controls one leads; one that was killed is succeeded, and one that slept too long does no harm."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest

from martlet.control.leadership import KEY, Alone, Election, NotLeading
from martlet.storage.etcd.store import EtcdStore
from martlet.storage.fenced import FencedStore
from martlet.storage.memory import MemoryStore
from martlet.storage.store import Lease, Store, StoreError
from martlet.store_address import EtcdAddress
from tests.contract.conftest import Connect
from tests.etcd import Cluster

pytestmark = pytest.mark.anyio

TTL = 2.0
PATIENT = 60
CANDIDATE = """
import asyncio, structlog, sys
from martlet.control.leadership import Election
from martlet.storage.etcd.store import EtcdStore
from martlet.storage.store import GuardLost, StoreError
from martlet.store_address import EtcdAddress

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def lead():
    # Who is told that it leads no more stops. This one has not heard of it: each write comes just after a look.
    await asyncio.shield(asyncio.create_task(work(election.guard())))

async def work(guard):
    print("leads", flush=True)
    while True:
        try:
            await store.put("/work", b"candidate", guard=guard)
        except GuardLost:
            print("refused", flush=True)
            return
        except StoreError:
            pass  # it has slept while the answer came, for longer than it waits for one
        await asyncio.sleep(0.01)

async def main():
    global store, election
    store = await EtcdStore.open(EtcdAddress.parse(sys.argv[1]))
    election = Election(store, "candidate", ttl=2, heartbeat=0.5, look=0.1)
    election.open(lead)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Work:
    """What a leader does: it says that it does it."""

    def __init__(self) -> None:
        self.times = 0
        self.working = False

    async def __call__(self) -> None:
        self.times, self.working = self.times + 1, True
        try:
            await asyncio.sleep(600)
        finally:
            self.working = False


def stand(
    store: Store, node: str, ttl: float = TTL, gives_way: Callable[[], bool] = lambda: False
) -> tuple[Election, Work]:
    election = Election(store, node, ttl=ttl, heartbeat=0.3, look=0.05, gives_way=gives_way)
    work = Work()
    election.open(work)
    return election, work


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENT):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_leads_and_when_it_stops_another_does(connect: Connect) -> None:
    standing = [stand(await connect(), f"n{number}") for number in range(3)]
    while standing:
        leading = await only_leader(standing)
        standing = [each for each in standing if each[0] is not leading]
        await leading.close()
        assert not leading.leads


async def test_who_stops_or_gives_way_does_not_let_others_wait_for_its_lease_to_end(connect: Connect) -> None:
    withdrawn = False
    first, first_work = stand(await connect(), "n1", ttl=600, gives_way=lambda: withdrawn)
    await until(lambda: first_work.working)
    second, second_work = stand(await connect(), "n2", ttl=600)
    withdrawn = True
    await until(lambda: second_work.working)
    await until(lambda: first.leader == "n2")
    assert (first.leads, first_work.working, first_work.times) == (False, False, 1)
    withdrawn = False
    third, third_work = stand(await connect(), "n3", ttl=600, gives_way=lambda: True)
    await second.close()
    await until(lambda: first_work.working)
    assert third_work.times == 0
    for each in (first, third):
        await each.close()


async def test_who_gives_way_to_nobody_leads_again(connect: Connect) -> None:
    withdrawn, looks = True, 0

    def gives_way() -> bool:
        nonlocal looks
        looks += 1
        return withdrawn

    election, work = stand(await connect(), "n1", gives_way=gives_way)
    await until(lambda: work.working)
    assert election.leads
    await until(lambda: work.times == 2)  # it has offered the lead once
    for _ in range(40):
        await asyncio.sleep(0.05)
        assert work.working, "it lets go again and again"
    withdrawn, before = False, looks
    await until(lambda: looks > before)  # it has seen that the wish is gone
    withdrawn = True
    await until(lambda: not work.working)  # a new wish is a new offer
    await election.close()


async def only_leader(standing: list[tuple[Election, Work]]) -> Election:
    """Returns the one that leads, once all agree."""
    await until(lambda: any(work.working for _, work in standing))
    await until(lambda: len({election.leader for election, _ in standing}) == 1)
    ((leading, _),) = [each for each in standing if each[0].leads]
    assert sum(work.working for _, work in standing) == 1
    return leading


async def test_what_an_earlier_life_has_left_is_taken_over_at_once(connect: Connect) -> None:
    store = await connect()
    await store.put(KEY, b"n1", lease=await store.lease(600))
    other, _ = stand(store, "n2")
    election, _ = stand(store, "n1")
    async with asyncio.timeout(PATIENT):
        await until(lambda: election.leads)
    await until(lambda: other.leader == "n1")
    assert not other.leads
    await election.close()
    await other.close()


async def test_who_does_not_lead_writes_nothing_as_the_leader(connect: Connect) -> None:
    store = await connect()
    leading, _ = stand(store, "n1")
    await until(lambda: leading.leads)
    following, _ = stand(store, "n2")
    await FencedStore(store, leading.guard).put("/a", b"led")
    with pytest.raises(NotLeading):
        await FencedStore(store, following.guard).put("/a", b"not led")
    with pytest.raises(NotLeading):
        await FencedStore(store, following.guard).delete("/a")
    assert (await store.get("/a")) is not None
    await leading.close()
    await following.close()


class Shaky(MemoryStore):
    """A store that can go out of reach, and whose leases a test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.reachable = True
        self.granted: list[Lease] = []

    async def lease(self, ttl: float) -> Lease:  # type: ignore[override]
        lease = await super().lease(ttl)
        self.granted.append(lease)
        keep_alive = lease.keep_alive

        async def shaky() -> None:
            if not self.reachable:
                raise StoreError("out of reach")
            await keep_alive()

        lease.keep_alive = shaky  # type: ignore[method-assign]
        return lease


async def test_a_leader_that_cannot_renew_stops_by_itself(anyio_backend: str) -> None:
    store = Shaky()
    election, work = stand(store, "n1")
    await until(lambda: work.working)
    store.reachable = False
    await until(lambda: not election.leads)
    with pytest.raises(NotLeading):
        election.guard()
    await until(lambda: work.times == 2)  # the store, which was there after all, says that nobody leads
    await election.close()


async def test_a_leader_whose_lease_has_ended_stops_and_may_lead_again(anyio_backend: str) -> None:
    store = Shaky()
    election, work = stand(store, "n1")
    await until(lambda: work.working)
    before = election.guard()
    await store.granted[-1].revoke()
    await until(lambda: work.times == 2)
    assert election.guard().revision > before.revision
    await election.close()
    assert not work.working


async def test_a_control_that_is_alone_leads(anyio_backend: str) -> None:
    alone, work = Alone("n1"), Work()
    assert (alone.leads, alone.leader, alone.guard()) == (True, "n1", None)
    alone.open(work)
    await until(lambda: work.working)
    await alone.close()
    assert not work.working


@pytest.fixture
async def candidate(etcd: Cluster) -> AsyncIterator[tuple[Process, EtcdStore]]:
    """A process that leads and writes all the time, and the store that it shares."""
    address = EtcdAddress(etcd.endpoints, f"/{uuid4().hex}")
    store = await EtcdStore.open(address)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CANDIDATE, str(address), stdout=PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENT):
        assert await process.stdout.readline() == b"leads\n"
        while await store.get("/work") is None:
            await asyncio.sleep(0.01)
    yield process, store
    if process.returncode is None:
        process.kill()
    await process.wait()
    await store.close()


async def test_a_leader_that_is_killed_is_succeeded_within_its_lease(
    candidate: tuple[Process, EtcdStore],
) -> None:
    process, store = candidate
    successor, work = stand(store, "successor")
    await until(lambda: successor.leader == "candidate")
    process.kill()
    began = asyncio.get_running_loop().time()
    await until(lambda: work.working)
    assert asyncio.get_running_loop().time() - began < 10 * TTL  # etcd ends leases at its leisure
    assert successor.leads
    await successor.close()


async def test_a_leader_that_slept_too_long_writes_nothing_more(candidate: tuple[Process, EtcdStore]) -> None:
    process, store = candidate
    process.send_signal(signal.SIGSTOP)
    successor, work = stand(store, "successor")
    await until(lambda: work.working)
    written = await FencedStore(store, successor.guard).put("/work", b"successor")
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENT):
        assert await process.stdout.readline() == b"refused\n"
    entry = await store.get("/work")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"successor", written)
    assert successor.leads
    await successor.close()
