"""A node keeps instances as long as its policy says, brings them back in time, and can say why.

The node is real and its instances are the fake driver's; hours pass by telling it another time.
"""

import asyncio
from time import monotonic, time
from types import SimpleNamespace

import orjson
import pytest

from martlet.drivers.fake import FakeDriver
from martlet.errors import FunctionNotFound
from martlet.http.fetch import fetch
from martlet.http.server import Server
from martlet.model import Drain, Function, FunctionConfig, NodeScaling, Revision, ScalingAction
from martlet.node import housekeeping
from martlet.node.endpoint import Endpoint
from martlet.node.habit import DECISIONS_KEPT, Habit, Habits
from martlet.node.housekeeping import Housekeeping
from martlet.node.logs import LogStore
from martlet.node.node import Node
from martlet.node.recorder import Recorder
from martlet.node.summary import summary
from martlet.node.withdrawal import Withdrawal
from martlet.scheduling.keepalive import FEWEST, Basis
from martlet.settings import SystemSettings
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats
from tests.unit.http.conftest import LIMITS

pytestmark = pytest.mark.anyio

MINUTE = 60.0


class Lane:
    """A node behind its private socket, whose housekeeping is done when a test says so."""

    def __init__(self, folder, own=None, **system):
        self.own = own
        self.settings = SystemSettings(
            function_storage_path=folder, min_cells=0, max_cells=0, **{"keep_alive": "learned", **system}
        )
        self.socket = folder / "lane-0.sock"
        self.store = MemoryStore()
        self.registry = Registry(self.store)
        self.view = RegistryView(self.store)
        self.driver = FakeDriver()
        self.history = History(folder / "history.db", 10)
        self.logs = LogStore(folder / "logs", "lane-0", 2**20, 2**20)

    async def __aenter__(self):
        await self.view.start()
        folder = self.settings.function_storage_path

        async def ensure(_digest):
            return folder

        self.node = Node(
            lane=0,
            lanes=1,
            settings=self.settings,
            run=folder,
            view=self.view,
            drivers={"process": self.driver, "fake": self.driver},
            packages=SimpleNamespace(ensure=ensure),
            logs=self.logs,
            recorder=Recorder(LaneStats(), self.history),
            runtimes=lambda name: (name, None),
            withdrawal=Withdrawal(self.view, "own"),
            own=self.own,
        )
        await self.driver.open(lambda *_: None)
        self.housekeeping = Housekeeping(self.node, self.view)
        endpoint = Endpoint(self.node, self.view, lambda _: self.socket)
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(Server(endpoint, LIMITS), self.socket)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await until(lambda: not any(instance.dead for instance in self.node.instances.values()))
        await self.node.close()
        await self.history.close()
        await self.logs.close()
        await self.view.close()

    async def deploy(self, name="f", **config):
        revision = Revision(
            function=name, number=1, config=FunctionConfig(**config), code="0" * 64, created=0.0
        )
        await self.registry.put_revision(revision)
        function = Function(name=name, latest=1, counter=1, created=0.0, updated=0.0)
        await self.view.catch_up(await self.registry.put_function(function))
        return self.node.pool(revision)

    async def invoke(self, *headers):
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(
            b"GET /_node/invoke/ HTTP/1.1\r\nhost: x\r\nx-martlet-revision: f@1\r\nconnection: close\r\n"
            + b"".join(headers)
            + b"\r\n"
        )
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        self.tend()

    async def add_instance(self, pool):
        pool.starting += 1
        await pool.add_instance()

    def tend(self, later=0.0):
        self.housekeeping.tend(monotonic() + later)

    def learn(self, idle):
        for _ in range(FEWEST):
            self.node.habits.of("f").idle_times.observe(idle)

    async def scaling(self):
        _, body = await fetch(self.socket, "GET", "/_node/scaling/f", timeout=60)
        return NodeScaling.model_validate(orjson.loads(body))


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_fixed_time_ends_instances_after_it_and_brings_none_back(tmp_path):
    async with Lane(tmp_path, keep_alive="fixed", warm_instance_ttl=600) as lane:
        pool = await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(9 * MINUTE)
        assert pool.held == 1
        lane.tend(11 * MINUTE)
        assert pool.held == 0
        lane.tend(28 * MINUTE)
        assert pool.held == 0


async def test_what_is_called_each_half_hour_goes_soon_and_is_back_when_the_next_call_is_due(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        await lane.add_instance(pool)
        lane.tend(30)
        assert pool.held == 2
        lane.tend(5 * MINUTE)
        assert pool.held == 0
        lane.tend(20 * MINUTE)
        assert pool.held == 0
        lane.tend(28 * MINUTE)
        await until(lambda: len(pool.idle) == 2)
        lane.tend(33 * MINUTE)
        assert pool.held >= 1
        lane.tend(40 * MINUTE)
        assert pool.held == 0
        lane.tend(41 * MINUTE)
        assert pool.held == 0


async def test_a_call_before_it_was_due_starts_its_own_and_nothing_comes_on_top(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(5 * MINUTE)
        assert pool.held == 0
        await lane.invoke()
        assert pool.held == 1
        lane.tend(28 * MINUTE)
        assert pool.held == 1


async def test_what_is_called_each_two_minutes_stays_until_one_is_overdue(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        lane.learn(61)
        await lane.invoke()
        lane.tend(100)
        assert pool.held == 1
        lane.tend(5 * MINUTE)
        assert pool.held == 0


async def test_instances_beyond_the_first_go_after_the_fixed_time(tmp_path):
    async with Lane(tmp_path, warm_instance_ttl=60) as lane:
        pool = await lane.deploy()
        for minute in (1.1, 1.1, 1.1, 1.1, 15):
            lane.node.habits.of("f").idle_times.observe(minute * MINUTE)
        await lane.invoke()
        await lane.add_instance(pool)
        lane.tend(10 * MINUTE)
        assert pool.held == 1


async def test_the_idle_ttl_of_a_function_goes_before_what_was_learned(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy(idle_ttl=1200)
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(19 * MINUTE)
        assert pool.held == 1
        lane.tend(21 * MINUTE)
        assert pool.held == 0
        lane.tend(28 * MINUTE)
        assert pool.held == 0


async def test_min_instances_stay_whatever_was_learned(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy(min_instances=1)
        lane.learn(30 * MINUTE)
        await lane.invoke()
        await lane.add_instance(pool)
        lane.tend(5 * MINUTE)
        assert pool.held == 1


async def test_nothing_is_brought_back_beyond_max_instances_or_without_memory(tmp_path, monkeypatch):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy(max_instances=2)
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(5 * MINUTE)
        habit = lane.node.habits.of("f")
        with monkeypatch.context() as short:
            short.setattr(housekeeping, "available_share", lambda: 0.01)
            habit.put_away = 50
            lane.tend(28 * MINUTE)
        assert pool.held == 0
        assert habit.decisions[-1].action is ScalingAction.STAY
        habit.put_away = 50
        lane.tend(28 * MINUTE)
        assert pool.held == 2
        await until(lambda: len(pool.idle) == 2)


async def test_nothing_is_brought_back_where_the_lane_has_no_room(tmp_path):
    async with Lane(tmp_path, max_concurrent_functions=1) as lane:
        pool = await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(5 * MINUTE)
        other = await lane.deploy("g", idle_ttl=7200)
        await lane.add_instance(other)
        lane.tend(28 * MINUTE)
        assert pool.held == 0


async def test_a_lane_learns_from_the_calls_that_it_sees(tmp_path):
    async with Lane(tmp_path, keep_alive="fixed") as lane:
        await lane.deploy()
        habit = lane.node.habits.of("f")
        for _ in range(FEWEST):
            await lane.invoke()
            habit.used -= 30 * MINUTE
        assert habit.idle_times.known == FEWEST - 1
        await lane.invoke()
        scaling = await lane.scaling()
        assert scaling.keep_alive.basis == Basis.TTL
        assert scaling.learned.basis == Basis.HISTOGRAM
        assert scaling.learned.begin < 30 * MINUTE < scaling.learned.end


async def test_decisions_are_explained_newest_first_and_only_the_last_are_kept(tmp_path):
    async with Lane(tmp_path) as lane:
        await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(5 * MINUTE)
        scaling = await lane.scaling()
        assert (scaling.instances, scaling.busy, scaling.idle_times) == (0, 0, FEWEST)
        ended, started = scaling.decisions
        assert (started.action, started.instances, started.revision) == (ScalingAction.START, 1, 1)
        assert (ended.action, ended.instances, ended.node) == (ScalingAction.END, 1, "lane-0")
        assert ended.reason == "no call is due before 27 min after the last"
        assert "1 instance will be back by then" in scaling.why
        habit = lane.node.habits.of("f")
        for number in range(100):
            habit.note(1, ScalingAction.STAY, f"reason {number}")
            habit.note(1, ScalingAction.STAY, f"reason {number}")
        scaling = await lane.scaling()
        assert len(scaling.decisions) == DECISIONS_KEPT
        assert (scaling.decisions[0].reason, scaling.decisions[0].times) == ("reason 99", 2)


async def test_a_function_that_is_not_there_is_not_explained(tmp_path):
    async with Lane(tmp_path) as lane:
        with pytest.raises(FunctionNotFound):
            lane.node.scaling("nobody")
        assert list(lane.node.habits) == []


async def test_what_was_put_away_comes_back_in_the_next_life_of_the_lane(tmp_path):
    async with Lane(tmp_path) as lane:
        await lane.deploy()
        lane.learn(30 * MINUTE)
        await lane.invoke()
        lane.tend(5 * MINUTE)
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        lane.node.habits.load(lane.view.functions)
        lane.tend(20 * MINUTE)
        assert pool.held == 0
        lane.tend(28 * MINUTE)
        await until(lambda: len(pool.idle) == 1)


def test_habits_are_written_and_those_of_functions_that_are_gone_are_not_read(tmp_path):
    habits = Habits(tmp_path / "habits-0.json")
    habits.of("here").seen(monotonic() - 100)
    habits.of("here").idle_times.observe(300)
    habits.of("gone").seen(monotonic())
    habits.save()
    again = Habits(tmp_path / "habits-0.json")
    again.load({"here"})
    assert [name for name, _ in again] == ["here"]
    assert again.of("here").idle_times.known == 1
    assert monotonic() - again.of("here").used == pytest.approx(100, abs=60)


def test_a_clock_that_was_set_back_makes_no_function_used_in_the_future():
    habit = Habit.from_json({**Habit().to_json(), "used": time() + 1e6})
    assert habit.used <= monotonic()


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"f": 1}', b'{"f": {"idle_times": {}}}', b"\xff"])
def test_a_file_that_cannot_be_read_costs_what_was_learned_and_nothing_else(tmp_path, text):
    path = tmp_path / "habits-0.json"
    path.write_bytes(text)
    habits = Habits(path)
    habits.load({"f"})
    assert list(habits) == []
    habits.of("f").seen(monotonic())
    habits.save()
    again = Habits(path)
    again.load({"f"})
    assert [name for name, _ in again] == ["f"]


ENTRY = {
    "time": 1.0,
    "function": "f",
    "revision": 1,
    "instance": "i1",
    "request_id": None,
    "stream": "stdout",
    "message": "hello",
}


async def test_what_is_known_of_a_function_goes_with_it_whoever_has_deleted_it(tmp_path):
    async with Lane(tmp_path) as lane:
        await lane.deploy()
        await lane.invoke()
        lane.logs.append(ENTRY)
        assert await lane.logs.read("f")
        assert await lane.history.list("f", 1)
        await lane.view.catch_up(await lane.registry.delete_function("f"))
        async with asyncio.timeout(60):
            while await lane.logs.read("f") or await lane.history.list("f", 1):
                await asyncio.sleep(0.005)
        assert "f" not in lane.node.recorder.stats.functions
        assert await lane.logs.functions() == []


async def test_logs_of_a_function_that_was_deleted_while_the_lane_was_away_go_when_it_is_back(tmp_path):
    async with Lane(tmp_path) as lane:
        lane.logs.append(ENTRY)
        assert await lane.logs.read("f")
        assert await lane.logs.functions() == ["f"]
        await lane.node.open()
        async with asyncio.timeout(60):
            while await lane.logs.read("f"):
                await asyncio.sleep(0.005)


async def test_a_drained_machine_lets_go_of_what_is_idle_and_starts_nothing_ahead(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy(min_instances=1)
        await lane.add_instance(pool)
        await lane.view.catch_up(await lane.registry.put_drain(Drain(node="own", since=0.0)))
        lane.tend()
        assert not pool.held
        lane.tend()
        assert not pool.held
        await lane.view.catch_up(await lane.registry.delete_drain("own"))
        lane.tend()
        assert pool.held


async def test_calls_that_other_machines_send_are_told_by_these_until_none_come_any_more(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        await lane.invoke()
        assert summary(lane.node, lane.view)["forwarded"] == {}
        begun = []
        finished = pool.finished

        def ended_late(call, *result):
            begun.append(call.sender)
            call.sent -= 60  # it ran for a minute
            return finished(call, *result)

        pool.finished = ended_late
        await lane.invoke(b"x-martlet-node: other\r\n")
        await lane.invoke()
        assert begun == ["other", ""]
        told = summary(lane.node, lane.view)
        assert 0 < told["forwarded"]["f@1"]["other"] < told["calls"]["f@1"]
        for _ in range(60):
            lane.tend()
        assert summary(lane.node, lane.view)["forwarded"] == {}


async def test_a_revision_that_a_newer_control_sends_is_loaded(tmp_path):
    async with Lane(tmp_path) as lane:
        revision = (await lane.deploy()).revision
        document = revision.model_dump(mode="json")
        document["of_the_future"] = document["config"]["of_the_future"] = 1
        status, body = await fetch(lane.socket, "POST", "/_node/load", document, timeout=30)
        assert status == 200, body
        assert lane.node.pools["f@1"].revision == revision
