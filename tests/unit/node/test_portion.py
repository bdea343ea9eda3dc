"""A machine has no more instances than its part of them, and keeps its part of `min_instances`.

The node is real and its instances are the fake driver's; the other nodes are what the store says.
"""

from time import monotonic
from types import SimpleNamespace

import pytest

from martlet.model import Division, ExecutionMode, Node, NodeLane, ScalingAction
from martlet.scheduling.placement import HOMES
from tests.unit.node.test_keeping import Lane, until

pytestmark = pytest.mark.anyio

OWN = "own"


class Machine(Lane):
    """A lane of a machine among others."""

    def __init__(self, folder):
        super().__init__(folder, own=OWN, keep_alive="fixed")

    async def __aenter__(self):
        await super().__aenter__()
        self.lease = await self.registry.join(600)
        await self.join(OWN)
        return self

    async def join(self, name, lease=None, **facts):
        described = Node(
            id=name,
            host=name,
            address=None,
            version="1",
            rungs=(ExecutionMode.PROCESS,),
            runtimes=("python",),
            cores=2,
            memory=2**34,
            memory_free=2**34,
            load=0.0,
            lanes=(NodeLane(name="lane-0", state="ready", capacity=50),),
            started=0.0,
            **facts,
        )
        await self.view.catch_up(await self.registry.put_node(described, lease or self.lease))

    async def divide(self, wanted=0, **shares):
        division = Division(
            function="f", number=1, created=0.0, shares=shares, wanted={OWN: wanted} if wanted else {}
        )
        await self.view.catch_up(await self.registry.put_division(division))


async def test_it_starts_no_more_than_its_part_however_many_wait(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        await machine.join("other")
        await machine.divide(own=2, other=8)
        assert pool._load(100).room == 2
        for _ in range(2):
            await machine.add_instance(pool)
        assert pool._load(100).room == 0
        await machine.divide(own=5, other=5)
        assert pool._load(100).room == 3


async def test_what_is_too_many_since_its_part_is_smaller_ends(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        for _ in range(4):
            await machine.add_instance(pool)
        await machine.divide(own=1, other=9)  # of whom nobody has heard: it is gone
        machine.tend()
        assert len(pool.instances) == 4
        await machine.join("other")
        machine.tend()
        assert len(pool.instances) == 1
        (decision, *_) = (await machine.scaling()).decisions
        assert (decision.action, decision.instances) == (ScalingAction.END, 3)
        assert "part" in decision.reason


async def test_an_instance_that_is_too_many_finishes_its_call_and_takes_no_other(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        await machine.join("other")
        await machine.divide(own=1, other=9)
        await machine.add_instance(pool)
        (instance,) = pool.instances
        (slot,) = pool.idle
        pool.idle.remove(slot)
        slot.call = SimpleNamespace(sent=monotonic(), sender="", exchange=SimpleNamespace(request_id="r"))
        await machine.divide(other=10)
        machine.tend()
        assert not instance.dead
        assert pool.free == 0
        slot.call = None
        pool.slot_free(slot)
        assert instance.dead
        assert pool.held == 0


async def test_min_instances_are_kept_by_all_together_and_inherited(tmp_path):
    async with Machine(tmp_path) as machine:
        lease = await machine.registry.join(600)
        for name in ("a", "b"):
            await machine.join(name, lease)
        pool = await machine.deploy(min_instances=4, max_instances=12)
        parts = {}
        for name in (OWN, "a", "b"):
            machine.node.portion._own = name
            parts[name] = machine.node.portion.least(pool.revision)
            machine.node.portion._changed()
        assert sorted(parts.values()) == [1, 1, 2]
        machine.node.portion._own = OWN
        machine.tend()
        await until(lambda: len(pool.instances) == parts[OWN])
        await lease.revoke()
        await until(lambda: len(machine.view.nodes) == 1)
        for _ in range(4):  # one is started at a time
            machine.tend()
            await until(lambda: not pool.starting)
        assert len(pool.instances) == 4


async def test_while_the_store_has_forgotten_it_a_machine_goes_by_what_it_knew(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        await machine.join("other", await machine.registry.join(600))
        await machine.divide(own=3, other=7)
        assert machine.node.portion.most(pool.revision) == 3
        await machine.lease.revoke()
        await until(lambda: OWN not in machine.view.nodes)
        assert machine.node.portion.most(pool.revision) == 3


async def test_a_machine_that_is_the_first_has_all(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        await machine.lease.revoke()
        await until(lambda: not machine.view.nodes)
        assert machine.node.portion.most(pool.revision) == 10


async def test_of_many_machines_the_homes_begin(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10)
        for number in range(9):
            await machine.join(f"n{number}")
        shares = machine.node.portion.shares(pool.revision)
        assert (len(shares), sum(shares.values())) == (HOMES, 10)


async def test_what_is_expected_is_started_ahead_and_kept_and_goes_when_it_is_not_expected_any_more(tmp_path):
    async with Machine(tmp_path) as machine:
        pool = await machine.deploy(max_instances=10, idle_ttl=1)
        await machine.join("other")
        await machine.divide(wanted=9, own=2, other=8)  # it may have two
        for _ in range(4):
            machine.tend()
            await until(lambda: not pool.starting)
        assert len(pool.instances) == 2
        machine.tend(600)
        assert len(pool.instances) == 2
        await machine.divide(own=2, other=8)
        machine.tend(600)
        assert len(pool.instances) == 0
        assert any("calls of all machines" in each.reason for each in (await machine.scaling()).decisions)
