"""Which machine runs a call, and what becomes of it when that machine does not answer.

The other machines are servers over mutual TLS on loopback, and what they run is the test's.
"""

import asyncio
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from martlet.cluster.authority import Authority, new_request
from martlet.cluster.identity import Identity
from martlet.cluster.joining import begin
from martlet.errors import Overloaded
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.fleet import Fleet
from martlet.http.server import Server
from martlet.model import ExecutionMode, FunctionConfig, Node, NodeLane, Revision, Role
from martlet.node.call import Call
from martlet.node.passage import Passage
from martlet.node.target import Target
from martlet.peer_address import PeerAddress
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from tests.unit.http.conftest import LIMITS, Application, serving  # noqa: F401

pytestmark = pytest.mark.anyio

OWN = "own"
REVISION = Revision(function="hello", number=1, config=FunctionConfig(), code="0" * 64, created=0)


def node(name, peer=None, *, roles=tuple(Role), warm=0, **facts):
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
        lanes=(NodeLane(name="lane-0", state="ready", capacity=facts.pop("capacity", 100)),),
        started=0.0,
        peer=peer,
        memory_free=2**34,
        cpu_free=2000,
        warm={REVISION.id: (1, warm)} if warm else {},
        **facts,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Returns the identity of a machine by the name of its node."""
    first = Identity(tmp_path_factory.mktemp("cluster"))
    begin(first, OWN)

    def identity(name):
        folder = tmp_path_factory.mktemp(name)
        key, request = new_request(name)
        other = Identity(folder)
        other.write(other.authority, first.authority.read_bytes())
        other.write(other.certificate, Authority.of(first).sign(request))
        other.write(other.key, key)
        return other

    identity.first = first
    return identity


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

    async def open(self):
        self.lease = await self.registry.join(60)
        await self.view.start()
        self.fleet = Fleet(self.view, OWN, self.cluster.first.towards_others())
        pool = SimpleNamespace(idle=[], held=0, submit=self.here.append)
        lane = SimpleNamespace(
            lane=0, lanes=1, allowance=None, pools={REVISION.id: pool}, drivers={"fake"} if self.runs else {}
        )
        lane.pool = lambda _: pool
        self.dispatch = Dispatch(lane, None, self.fleet)

    async def put(self, described):
        await self.view.catch_up(await self.registry.put_node(described, self.lease))

    async def add(self, name, answer=None, **facts):
        """Starts a machine; ``answer`` is what it does with requests."""
        self.heard[name] = []

        def handle(exchange):
            exchange.request_id = (exchange.given_id or b"").decode()
            self.heard[name].append(exchange)
            (answer or (lambda exchange: exchange.answer(200, name.encode())))(exchange)

        listener = socket.create_server(("127.0.0.1", 0))
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

    def handle(self, exchange):
        exchange.request_id = "r1"
        passage = Passage.of_client(exchange, Target(REVISION), exchange.target, strip_key=True)
        call = exchange.context = Call(exchange, passage)
        try:
            self.dispatch.submit(call)
        except Exception as error:
            call.fail(error)


@asynccontextmanager
async def gateway(cluster, serving, *, runs=False):  # noqa: F811
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


async def test_a_gateway_that_runs_nothing_lets_another_machine_run_it(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        await machines.put(node(OWN, roles=(Role.GATEWAY,), rungs=()))
        await machines.add("other")
        assert (await ask(machines))[::2] == (200, b"other")
        (exchange,) = machines.heard["other"]
        assert exchange.target == b"/_node/invoke/a?b"
        assert exchange.header(b"x-martlet-revision") == b"hello@1"
        assert exchange.header(b"x-forwarded-for") == b"127.0.0.1"


async def test_what_is_warm_somewhere_is_not_started_here(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("cold")
        await machines.add("warm", warm=3)
        assert {(await ask(machines))[2] for _ in range(6)} == {b"warm"}
        assert machines.here == []


async def test_a_machine_without_the_rung_gets_nothing(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        await machines.add("fit")
        for name in ("one", "two", "three", "four"):
            await machines.add(name, rungs=(ExecutionMode.CONTAINER,))
        assert {(await ask(machines))[2] for _ in range(6)} == {b"fit"}


async def test_where_nobody_has_room_the_answer_is_no_capacity(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        await machines.add("full", capacity=0)
        status, headers, body = await ask(machines)
        assert (status, headers["x-faas-revision"]) == (503, "1")
        assert b'"code":"no_capacity"' in body


async def test_a_machine_that_takes_no_connections_loses_its_calls_to_another(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        await machines.add("dying", warm=5)
        await machines.add("living")
        assert (await ask(machines))[2] == b"dying"
        await machines.end("dying")
        # The registry still knows it; the calls in doubt are not tried there again.
        assert {(await ask(machines))[::2] for _ in range(4)} == {(200, b"living")}


async def test_where_no_other_answers_a_machine_that_can_runs_it_itself(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("dying", warm=5)
        await machines.end("dying")
        client = await machines.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        while not machines.here:
            await asyncio.sleep(0.01)
        machines.here[0].exchange.answer(204)


async def test_a_call_in_flight_on_a_machine_that_dies_is_an_error_and_not_sent_again(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        arrived = asyncio.Event()
        await machines.add("dying", lambda _: arrived.set(), warm=5)
        await machines.add("living")
        asked = asyncio.create_task(ask(machines))
        await arrived.wait()
        await machines.end("dying")
        status, _, body = await asked
        assert status == 502
        assert b'"code":"function_crashed"' in body
        assert machines.heard["living"] == []


async def test_a_machine_that_has_left_and_hangs_is_waited_for_no_longer(cluster, serving, monkeypatch):  # noqa: F811
    monkeypatch.setattr("martlet.gateway.fleet.FAREWELL", 0.0)
    async with gateway(cluster, serving) as machines:
        arrived = asyncio.Event()
        await machines.add("hanging", lambda _: arrived.set())
        asked = asyncio.create_task(ask(machines))
        await arrived.wait()
        await machines.lease.revoke()
        assert (await asked)[0] == 502


async def test_what_waits_at_a_full_queue_is_refused_as_on_one_machine(cluster, serving):  # noqa: F811
    def full(_call):
        raise Overloaded("full")

    async with gateway(cluster, serving, runs=True) as machines:
        machines.dispatch._node.pool(REVISION).submit = full
        assert (await ask(machines))[0] == 429


async def test_management_goes_to_a_machine_that_has_the_role(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        machines.dispatch.submit = lambda call: machines.fleet.manage(
            call.exchange, b"GET /functions HTTP/1.1\r\n", b"x-request-id: r1\r\n"
        )
        status, _, body = await ask(machines)
        assert (status, b"role control" in body) == (503, True)
        await machines.add("runs", roles=(Role.NODE,))
        await machines.add("dead", roles=(Role.CONTROL,))
        await machines.add("manages", roles=(Role.CONTROL, Role.NODE))
        await machines.end("dead")
        assert (await ask(machines))[::2] == (200, b"manages")
        assert machines.heard["manages"][0].target == b"/functions"


async def test_control_asks_another_machine_by_a_lane_of_its_own(cluster, serving):  # noqa: F811
    async with gateway(cluster, serving) as machines:
        await machines.add("other")

        def relayed(call):
            call.exchange.context = None
            call.exchange.target = b"/_node/at/%b/load" % name
            machines.fleet.relay(call.exchange)

        machines.dispatch.submit = relayed
        name = b"other"
        assert (await ask(machines))[2] == b"other"
        assert machines.heard["other"][0].target == b"/_node/load"
        name = b"nobody"
        assert (await ask(machines))[0] == 503
