"""A cluster as one gateway sees it: the other machines are servers over mutual TLS on loopback; the test says what they
run.
"""

import asyncio
import socket
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

from martlet.gateway.dispatch import Dispatch
from martlet.gateway.fleet import Fleet
from martlet.http.server import Server
from martlet.model import Division, Drain, ExecutionMode, FunctionConfig, Node, NodeLane, Revision, Role
from martlet.node.call import Call
from martlet.node.node import Node as LaneNode
from martlet.node.passage import Passage
from martlet.node.portion import Portion
from martlet.node.target import Target
from martlet.node.withdrawal import Withdrawal
from martlet.peer_address import PeerAddress
from martlet.scheduling.backoff import Backoff
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from martlet.telemetry.stats import LaneStats
from tests.unit.http.conftest import LIMITS, Application, connections_closed

OWN = "own"
REVISION = Revision(function="hello", number=1, config=FunctionConfig(max_queue=3), code="0" * 64, created=0)


def node(name, peer=None, *, roles=tuple(Role), warm=0, capacity=100, **facts):
    lane = NodeLane(name="lane-0", state="ready", capacity=capacity)
    return Node(
        id=name,
        host=name,
        address=None,
        roles=roles,
        version="1",
        rungs=facts.pop("rungs", (ExecutionMode.PROCESS,)),
        runtimes=("python",),
        cores=2,
        memory=2**34,
        load=facts.pop("load", 0.0),
        lanes=facts.pop("lanes", (lane,)),
        started=facts.pop("started", 0.0),
        peer=peer,
        memory_free=2**34,
        cpu_free=2000,
        warm={REVISION.id: (1, warm)} if warm else {},
        **facts,
    )


class Machines:
    """The cluster as one gateway sees it."""

    def __init__(self, cluster, *, runs):
        self.cluster = cluster
        self.registry = Registry(MemoryStore())
        self.view = RegistryView(self.registry._store)
        self.here = []
        self.heard = {}
        self.servers = {}
        self.runs = runs
        self.stats = LaneStats()

    async def open(self):
        self.lease = await self.registry.join(60)
        await self.view.start()
        self.withdrawal = Withdrawal(self.view, OWN)
        portion = Portion(self.view, OWN, self.withdrawal)
        context = self.cluster.first.towards_others()
        self.fleet = Fleet(self.view, portion.shares, OWN, context, self.withdrawal)
        pool = SimpleNamespace(idle=[], held=0, backoff=Backoff(), submit=self.here.append)
        lane = SimpleNamespace(
            lane=0,
            lanes=1,
            allowance=None,
            portion=portion,
            pools={REVISION.id: pool},
            drivers={"fake"} if self.runs else {},
            withdrawal=self.withdrawal,
            recorder=SimpleNamespace(stats=self.stats),
        )
        lane.pool = lambda _: pool
        lane.refuse = partial(LaneNode.refuse, lane)
        self.dispatch = Dispatch(lane, None, self.fleet)

    async def divide(self, **shares):
        division = Division(function="hello", number=1, created=REVISION.created, shares=shares)
        await self.view.catch_up(await self.registry.put_division(division))

    async def put(self, described):
        await self.view.catch_up(await self.registry.put_node(described, self.lease))

    async def drain(self, name):
        await self.view.catch_up(await self.registry.put_drain(Drain(node=name, since=0.0)))

    async def add(self, name, answer=None, *, port=0, **facts):
        """Starts a machine; ``answer`` is what it does with requests."""
        self.heard[name] = []

        def handle(exchange):
            exchange.request_id = (exchange.given_id or b"").decode()
            self.heard[name].append(exchange)
            (answer or (lambda exchange: exchange.answer(200, name.encode())))(exchange)

        listener = socket.create_server(("127.0.0.1", port))
        server = Server(Application(handle), LIMITS)
        tcp = await asyncio.get_running_loop().create_server(
            server, sock=listener, ssl=self.cluster(name).for_others()
        )
        self.servers[name] = (server, tcp)
        await self.put(node(name, PeerAddress(*listener.getsockname()), **facts))

    async def end(self, name):
        server, tcp = self.servers.pop(name)
        tcp.close()
        await server.drain(0)
        await asyncio.sleep(0)

    async def close(self):
        for name in list(self.servers):
            await self.end(name)
        self.fleet.close()
        await self.view.close()
        await connections_closed()

    def handle(self, exchange):
        exchange.request_id = "r1"
        passage = Passage.of_client(exchange, Target(REVISION), exchange.target, strip_key=True)
        call = exchange.context = Call(exchange, passage)
        try:
            self.dispatch.submit(call)
        except Exception as error:
            call.fail(error)


@asynccontextmanager
async def gateway(cluster, serving, *, runs=False):
    machines = Machines(cluster, runs=runs)
    await machines.open()
    try:
        async with serving(machines.handle) as connect:
            machines.connect = connect
            yield machines
    finally:
        await machines.close()


async def ask(machines):
    client = await machines.connect()
    client.send(b"GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n")
    return await client.response()
