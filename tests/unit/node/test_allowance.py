"""The home lane counts: real lanes' allowances that talk over real sockets."""

import asyncio
import socket
from contextlib import asynccontextmanager

import orjson
import pytest

from martlet.http.server import Server
from martlet.model import FunctionConfig, Revision
from martlet.node.allowance import Allowance
from martlet.scheduling.placement import Placement, ranking
from tests.unit.http.conftest import LIMITS

pytestmark = pytest.mark.anyio


def revision(max_instances):
    return Revision(
        function="f", number=1, config=FunctionConfig(max_instances=max_instances), code="0" * 64, created=0
    )


class Lane:
    """An allowance, what its lane holds, and the part of the endpoint that others talk to."""

    def __init__(self, number, lanes, folder):
        self.held = {}
        self.idle = 0
        self.busy_for = 0.0
        self.most = 100
        self.folder = folder
        self.number = number
        self.allowance = Allowance(
            number,
            lanes,
            lambda n: folder / f"lane-{n}.sock",
            lambda r: (self.held.get(r, 0), self.idle),
            lambda: {r: count for r, count in self.held.items() if count},
            lambda revision: min(self.most, revision.config.max_instances),
        )

    def handle(self, exchange):
        asyncio.get_running_loop().call_later(self.busy_for, self._handle, exchange)

    def _handle(self, exchange):
        document = orjson.loads(b"".join(exchange.chunks))
        if exchange.target == b"/_node/place":
            q = document
            answer = self.allowance.asked(q["revision"], q["lane"], q["at"], q["held"], q["max"])
            exchange.answer_json(200, {"answer": answer})
        else:
            behind = self.allowance.reported(document["lane"], document["at"], document["held"])
            exchange.answer_json(200, {"behind": behind})

    async def take(self, wanted):
        """Asks for an instance as a pool does, which holds it at once."""
        answer = await self.allowance.ask(wanted)
        if answer is Placement.GRANT:
            self.held[wanted.id] = self.held.get(wanted.id, 0) + 1
        return answer

    @asynccontextmanager
    async def serving(self):
        server = Server(self, LIMITS)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / f"lane-{self.number}.sock"))
        unix = await asyncio.get_running_loop().create_unix_server(server, sock=listener)
        try:
            yield self
        finally:
            await self.allowance.close()
            unix.close()
            await server.drain(0)
            (self.folder / f"lane-{self.number}.sock").unlink()


@pytest.fixture
def lanes(tmp_path):
    """Two lanes; the first is home of ``f@1``."""
    order = ranking("f@1", range(2))
    return [Lane(number, 2, tmp_path) for number in order]


async def test_the_maximum_holds_over_both_lanes_whoever_asks(lanes):
    home, other = lanes
    wanted = revision(max_instances=3)
    async with home.serving(), other.serving():
        home.held["f@1"] = 0
        answers = [await lane.take(wanted) for lane in (home, other, other, home, other, home)]
    assert answers.count(Placement.GRANT) == 3
    assert home.held["f@1"] + other.held["f@1"] == 3
    assert answers[-1] is Placement.FULL


async def test_many_questions_at_once_are_granted_no_more_than_the_maximum(lanes):
    home, other = lanes
    wanted = revision(max_instances=5)
    async with home.serving(), other.serving():
        await home.take(wanted)
        await asyncio.gather(*(lane.take(wanted) for lane in (home, other) * 10))
    assert home.held["f@1"] + other.held.get("f@1", 0) == 5


async def test_what_is_being_asked_for_neither_counts_nor_is_left_out(lanes):
    home, other = lanes
    wanted, fewer = revision(max_instances=7), revision(max_instances=6)
    home.held["f@1"] = 2
    asking = True

    async def report():
        while asking:
            other.allowance.changed()
            assert home.allowance.surplus(wanted) == 0
            await asyncio.sleep(0)

    async with home.serving(), other.serving():
        reports = asyncio.create_task(report())
        answers = await asyncio.gather(*(other.take(wanted) for _ in range(10)))
        assert (answers.count(Placement.GRANT), other.held["f@1"]) == (5, 5)
        for _ in range(5):
            other.allowance.changed()
            await asyncio.sleep(0.03)
            assert home.allowance.surplus(fewer) == 1
        asking = False
        await reports


async def test_what_a_lane_gives_back_may_be_granted_again(lanes):
    home, other = lanes
    wanted = revision(max_instances=2)
    async with home.serving(), other.serving():
        assert await home.take(wanted) is Placement.GRANT
        assert await other.take(wanted) is Placement.GRANT
        assert await home.take(wanted) is Placement.FULL
        other.held["f@1"] = 0
        other.allowance.changed()
        async with asyncio.timeout(60):
            while await home.take(wanted) is Placement.FULL:
                await asyncio.sleep(0.01)


async def test_a_home_lane_that_is_gone_is_replaced_and_what_it_held_is_free(lanes):
    _, other = lanes
    wanted = revision(max_instances=1)
    async with other.serving():
        assert await other.take(wanted) is Placement.GRANT
    assert other.allowance.home("f@1") == other.number


async def test_a_home_lane_that_is_busy_for_a_while_decides_all_the_same(lanes):
    home, other = lanes
    wanted = revision(max_instances=1)
    home.busy_for = 3.0
    async with home.serving(), other.serving():
        assert await home.take(wanted) is Placement.GRANT
        assert await other.take(wanted) is not Placement.GRANT


async def test_calls_are_referred_to_the_lane_that_holds_the_instances(lanes):
    home, other = lanes
    home.allowance.reported(other.number, 1, {"f@1": 1})
    assert home.allowance.holder("f@1") == other.number
    assert other.allowance.holder("f@1") == home.number
    home.allowance.lost(other.number)
    assert home.allowance.holder("f@1") == home.number


async def test_a_report_that_was_overtaken_by_a_question_is_ignored(lanes):
    home, other = lanes
    assert home.allowance.asked("f@1", other.number, 10, 0, 1) is Placement.FORWARD
    home.held["f@1"] = 0
    home.idle = 0
    home.allowance.asked("f@1", other.number, 20, 1, 2)
    home.allowance.reported(other.number, 15, {})
    assert home.allowance.holder("f@1") == other.number


async def test_the_home_lane_knows_how_many_are_too_many_when_one_comes_back_with_its_own(lanes):
    home, other = lanes
    wanted = revision(max_instances=2)
    home.held["f@1"] = 2
    assert home.allowance.surplus(wanted) == 0

    home.allowance.reported(other.number, 1, {"f@1": 1})

    assert home.allowance.surplus(wanted) == 1
    other.held["f@1"] = 1
    assert other.allowance.surplus(wanted) == 0


async def test_lanes_give_up_what_is_too_many_for_the_machine_the_home_lane_first(lanes):
    home, other = lanes
    wanted = revision(max_instances=9)
    home.held["f@1"], other.held["f@1"] = 2, 3
    async with home.serving(), other.serving():
        other.allowance.changed()
        home.most = other.most = 3
        async with asyncio.timeout(60):
            while home.allowance.surplus(wanted) != 2:  # until the other has said that it holds three
                await asyncio.sleep(0.01)
        assert other.allowance.surplus(wanted) == 0
        home.most = other.most = 1
        assert [lane.allowance.surplus(wanted) for lane in lanes] == [2, 2]
        assert await other.take(wanted) is Placement.FULL
