"""A lane that is not the home of a revision: what it sends to the home lane, and when it asks for an instance."""

import asyncio
from types import SimpleNamespace

import pytest

from martlet.gateway.dispatch import Dispatch
from martlet.http.inward import Inward
from martlet.http.server import Server
from martlet.model import FunctionConfig, Revision
from martlet.node.call import Call
from martlet.node.forwards import Forwards
from martlet.node.passage import Passage
from martlet.node.target import Target
from martlet.scheduling.backoff import Backoff
from martlet.scheduling.placement import BUSY_FORWARDS, Placement
from tests.unit.http.conftest import LIMITS, Application

pytestmark = pytest.mark.anyio

REVISION = Revision(function="hello", number=1, config=FunctionConfig(), code="0" * 64, created=0)
LANE, HOME = 0, 1


class Lanes:
    """A lane, and the server that its home lane is."""

    def __init__(self, run):
        self.run = run
        self.forwarded = []
        self.senders = []
        self.asked = 0
        self.answer = Placement.GRANT
        self.started_here = asyncio.Event()
        self.run_here = []
        pool = SimpleNamespace(
            idle=[],
            held=0,
            backoff=Backoff(),
            revision=REVISION,
            forwards=Forwards(),
            forward_until=0.0,
            submit=self.run_here.append,
            start_granted=self._start,
            claim=self._ask,
        )
        allowance = SimpleNamespace(home=lambda _: HOME, holder=lambda _: HOME)
        self.tasks = []
        portion = SimpleNamespace(most=lambda revision: revision.config.max_instances)
        pools = {REVISION.id: pool}
        node = SimpleNamespace(lane=LANE, lanes=2, allowance=allowance, portion=portion, pools=pools)
        node.spawn = lambda coroutine: self.tasks.append(asyncio.create_task(coroutine))
        self.dispatch = Dispatch(node, run)

    async def __aenter__(self):
        def home_lane(exchange):
            exchange.request_id = (exchange.header(b"x-request-id") or b"").decode()
            self.forwarded.append(exchange.target)
            self.senders.append(exchange.header(b"x-martlet-node"))
            exchange.answer(200, b"from home")

        self.server = Server(Application(home_lane), LIMITS)
        self.socket = await asyncio.get_running_loop().create_unix_server(
            self.server, str(self.run / f"lane-{HOME}.sock")
        )
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*self.tasks)
        self.socket.close()
        await self.server.drain(0)
        while self.connected():
            await asyncio.sleep(0)

    async def _ask(self):
        self.asked += 1
        return self.answer

    async def _start(self):
        self.started_here.set()

    def connected(self):
        return [connection for hop in self.dispatch._hops.values() for connection in hop._connections]

    def submit(self, number, sender=""):
        inward = Inward(b"POST", b"", f"r-{number}", 1000)
        inward.exchange.context = call = Call(inward.exchange, Passage(Target(REVISION), b"POST", b"/", b""))
        call.sender = sender
        self.dispatch.submit(call)
        return inward

    async def respond(self, count):
        return [(await self.submit(number).response()).body for number in range(count)]


async def test_a_first_request_goes_to_the_home_lane_unasked(tmp_path):
    async with Lanes(tmp_path) as lanes:
        assert await lanes.respond(1) == [b"from home"]
        assert (len(lanes.forwarded), lanes.asked, lanes.run_here) == (1, 0, [])


async def test_the_home_lane_is_told_which_machine_has_sent_a_request_here(tmp_path):
    async with Lanes(tmp_path) as lanes:
        await lanes.submit(0).response()
        await lanes.submit(1, sender="other").response()
        assert lanes.senders == [None, b"other"]


async def test_who_has_much_to_forward_asks_for_an_instance_of_its_own(tmp_path):
    async with Lanes(tmp_path) as lanes:
        asked_for = [lanes.submit(number) for number in range(2 * BUSY_FORWARDS)]
        await lanes.started_here.wait()
        there = len(asked_for) - len(lanes.run_here)
        assert BUSY_FORWARDS <= there < len(asked_for)
        assert {(await inward.response()).body for inward in asked_for[:there]} == {b"from home"}
        assert lanes.asked == 1


async def test_what_the_home_lane_takes_is_forwarded_on(tmp_path):
    async with Lanes(tmp_path) as lanes:
        lanes.answer = Placement.FORWARD
        assert await lanes.respond(2 * BUSY_FORWARDS) == [b"from home"] * 2 * BUSY_FORWARDS
        assert lanes.asked >= 1
        assert not lanes.run_here
