"""Which machine runs a call, and what becomes of it when that machine does not answer."""

import asyncio

import pytest

from martlet.errors import FunctionCrashed, NoCapacity, Overloaded
from martlet.gateway import fleet
from martlet.gateway.dispatch import MOST_REFUSALS
from martlet.gateway.fleet import Fleet
from martlet.http.body import read_body
from martlet.http.hop import Hop
from martlet.http.refusal import refuse
from martlet.model import ExecutionMode, Role
from martlet.node.call import Arrival
from martlet.node.portion import Portion
from martlet.node.withdrawal import Withdrawal
from martlet.peer_address import PeerAddress
from tests.unit.gateway.machines import OWN, REVISION, ask, gateway, node

pytestmark = pytest.mark.anyio


async def test_a_gateway_that_runs_nothing_lets_another_machine_run_it(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.put(node(OWN, roles=(Role.GATEWAY,), rungs=()))
        await machines.add("other")
        assert (await ask(machines))[::2] == (200, b"other")
        (exchange,) = machines.heard["other"]
        assert exchange.target == b"/_node/invoke/a?b"
        assert exchange.header(b"x-martlet-revision") == b"hello@1"
        assert exchange.header(b"x-forwarded-for") == b"127.0.0.1"
        assert exchange.header(b"x-martlet-node") is None, "it could not run it itself"


async def test_a_gateway_that_runs_functions_says_that_the_call_came_to_it(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("warm", warm=3)
        await ask(machines)
        (exchange,) = machines.heard["warm"]
        assert exchange.header(b"x-martlet-node") == OWN.encode()


async def test_what_is_warm_somewhere_is_not_started_here(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("cold")
        await machines.add("warm", warm=3)
        assert {(await ask(machines))[2] for _ in range(6)} == {b"warm"}
        assert machines.here == []


async def test_what_machines_say_is_taken_in_together_but_who_leaves_at_once(cluster, serving, monkeypatch):
    monkeypatch.setattr(fleet, "CALM", 3600.0)
    async with gateway(cluster, serving) as machines:
        await machines.add("one", warm=5)
        await machines.add("other")
        assert (await ask(machines))[2] == b"one"
        for name, warm in (("one", 0), ("other", 5)):
            await machines.put(node(name, machines.view.nodes[name].peer, warm=warm))
        assert (await ask(machines))[2] == b"one"
        await machines.view.catch_up(await machines.registry._store.delete("/nodes/one"))
        assert (await ask(machines))[2] == b"other"


async def test_a_machine_without_the_rung_gets_nothing(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.add("fit")
        for name in ("one", "two", "three", "four"):
            await machines.add(name, rungs=(ExecutionMode.CONTAINER,))
        assert {(await ask(machines))[2] for _ in range(6)} == {b"fit"}


async def test_where_nobody_has_room_the_answer_is_no_capacity(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.add("full", capacity=0)
        status, headers, body = await ask(machines)
        assert (status, headers["x-faas-revision"]) == (503, "1")
        assert b'"code":"no_capacity"' in body


async def test_a_machine_that_takes_no_connections_loses_its_calls_to_another(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.add("dying", warm=5)
        await machines.add("living")
        assert (await ask(machines))[2] == b"dying"
        await machines.end("dying")
        # The registry still knows it; the calls in doubt are not tried there again.
        assert {(await ask(machines))[::2] for _ in range(4)} == {(200, b"living")}


async def test_a_machine_that_may_have_no_instance_lets_one_run_it_that_may(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("one")
        await machines.add("other")
        for name in ("one", "other", "one"):
            await machines.divide(**{name: 10})
            assert {(await ask(machines))[2] for _ in range(3)} == {name.encode()}
        assert machines.here == []


async def test_a_thousand_first_requests_through_several_gateways_go_to_one_machine(cluster, serving):
    async with gateway(cluster, serving) as machines:
        names = [f"n{number}" for number in range(7)]
        for port, name in enumerate(names, 1):
            await machines.put(node(name, PeerAddress("127.0.0.1", port), load=port / 10))
        gateways = []
        for own in names:
            withdrawal = Withdrawal(machines.view, own)
            portion = Portion(machines.view, own, withdrawal)
            context = machines.cluster.first.towards_others()
            gateways.append(Fleet(machines.view, portion.shares, own, context, withdrawal))
        chosen = {gateways[number % 7].choose(REVISION).id for number in range(1000)}
        assert len(chosen) == 1
        await machines.put(node(*chosen, PeerAddress("127.0.0.1", 9), warm=5))
        assert {each.choose(REVISION).id for each in gateways} == chosen


async def test_where_no_other_answers_a_machine_that_can_runs_it_itself(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("dying", warm=5)
        await machines.end("dying")
        client = await machines.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        while not machines.here:
            await asyncio.sleep(0.01)
        machines.here[0].exchange.answer(204)


async def test_a_call_in_flight_on_a_machine_that_dies_is_an_error_and_not_sent_again(cluster, serving):
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


async def test_a_machine_that_has_left_is_waited_for_while_it_answers(cluster, serving, monkeypatch):
    monkeypatch.setattr("martlet.gateway.fleet.FAREWELL", 0.0)
    async with gateway(cluster, serving) as machines:
        arrived = asyncio.Queue()
        await machines.add("lasting", arrived.put_nowait)
        looks = []
        looked = Hop.answers
        ends = False

        async def answers(hop):
            if ends:  # between two looks: in the midst of taking a connection asyncio would leave that open
                machines.servers["lasting"][1].close()
            looks.append(await looked(hop))
            return looks[-1]

        monkeypatch.setattr(Hop, "answers", answers)
        asked = [asyncio.create_task(ask(machines)) for _ in range(2)]
        exchange, _ = [await arrived.get() for _ in asked]
        await machines.lease.revoke()
        while len(looks) < 3:
            await asyncio.sleep(0.01)
        assert all(looks)
        exchange.answer(200, b"done")
        done, hangs = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert done.pop().result()[::2] == (200, b"done")
        ends = True
        assert (await hangs.pop())[0] == 502


@pytest.mark.usefixtures("impatient")
async def test_machines_that_the_store_has_forgotten_are_asked_before_nobody_is(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.put(node(OWN, roles=(Role.GATEWAY,), rungs=()))
        machines.lease = await machines.registry.join(60)
        await machines.add("forgotten")
        await machines.lease.revoke()
        while "forgotten" in machines.view.nodes:
            await asyncio.sleep(0.01)
        assert (await ask(machines))[::2] == (200, b"forgotten")
        machines.lease = await machines.registry.join(60)
        await machines.add("listed")
        assert {(await ask(machines))[2] for _ in range(4)} == {b"listed"}
        await machines.end("listed")
        assert (await ask(machines))[::2] == (200, b"forgotten")
        await machines.end("forgotten")
        assert (await ask(machines))[0] == 503


@pytest.mark.usefixtures("impatient")
async def test_a_machine_that_could_not_be_reached_a_moment_ago_is_asked_before_nobody_is(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.put(node(OWN, roles=(Role.GATEWAY,), rungs=()))
        await machines.add("away", warm=5)
        await machines.add("dying")
        port = machines.view.nodes["away"].peer.port
        await machines.end("away")
        assert (await ask(machines))[::2] == (200, b"dying")
        await machines.add("away", port=port, warm=5)
        assert (await ask(machines))[2] == b"dying"
        await machines.end("dying")
        assert (await ask(machines))[::2] == (200, b"away")
        await machines.end("away")
        assert (await ask(machines))[0] == 503


async def test_what_waits_at_a_full_queue_is_refused_as_on_one_machine(cluster, serving):
    def full(_call):
        raise Overloaded("full")

    async with gateway(cluster, serving, runs=True) as machines:
        machines.dispatch._node.pool(REVISION).submit = full
        assert (await ask(machines))[0] == 429


async def test_management_goes_to_a_machine_that_has_the_role(cluster, serving):
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
        assert machines.heard["manages"][0].header(b"x-martlet-node") == OWN.encode()  # who was asked first


async def test_control_asks_another_machine_by_a_lane_of_its_own(cluster, serving):
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


def no_room(exchange, error=None):
    refuse(exchange, error or NoCapacity("it is full"), ((b"x-faas-revision", b"1"),))


@pytest.mark.parametrize("error", [NoCapacity("it is full"), Overloaded("the queue is full")])
async def test_a_machine_that_has_no_room_after_all_loses_its_call_to_another(cluster, serving, error):
    async with gateway(cluster, serving) as machines:
        await machines.add("full", lambda exchange: no_room(exchange, error), warm=5)
        await machines.add("roomy")
        assert {(await ask(machines))[::2] for _ in range(3)} == {(200, b"roomy")}
        assert len(machines.heard["full"]) == 3


async def test_where_all_are_full_a_few_are_asked_and_the_last_says_why(cluster, serving):
    async with gateway(cluster, serving) as machines:
        for name in ("one", "two", "three", "four"):
            await machines.add(name, no_room, warm=1)
        status, headers, body = await ask(machines)
        assert (status, headers["x-faas-revision"], headers["retry-after"]) == (503, "1", "1")
        assert b"it is full" in body
        assert "x-martlet-refused" not in headers
        assert sum(map(len, machines.heard.values())) == MOST_REFUSALS


async def test_what_was_begun_or_answered_by_the_function_is_never_sent_again(cluster, serving):
    async with gateway(cluster, serving) as machines:
        # What ran and then ended so has no mark; nor has a 503 of the function's own.
        await machines.add("ran", lambda exchange: exchange.problem(NoCapacity("cut short")), warm=5)
        await machines.add("other")
        status, _, body = await ask(machines)
        assert status == 503
        assert b"cut short" in body
        assert machines.heard["other"] == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_was_sent_to_a_full_machine_goes_to_the_other_as_a_whole(cluster, serving, chunked):
    first, last, bodies = b"a" * 300_000, b"b" * 300_000, []

    def echo(exchange):
        async def answer():
            bodies.append(await read_body(exchange))
            exchange.answer(200)

        tasks.append(asyncio.create_task(answer()))

    tasks = []
    async with gateway(cluster, serving) as machines:
        await machines.add("full", no_room, warm=5)
        await machines.add("roomy", echo)
        client = await machines.connect()
        if chunked:
            client.send(
                b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(first)
            )
            client.send(first + b"\r\n")
        else:
            client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 600000\r\n\r\n" + first)
        while not machines.heard["roomy"]:
            await asyncio.sleep(0.001)
        client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if chunked else last)
        assert (await client.response())[0] == 200
        assert bodies == [first + last]


async def test_a_call_that_has_no_room_here_goes_to_another_machine(cluster, serving):
    def full(_call):
        raise Overloaded("full")

    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN, warm=1))
        pool = machines.dispatch._node.pool(REVISION)
        pool.held, pool.submit = 1, full
        await machines.add("roomy")
        assert (await ask(machines))[::2] == (200, b"roomy")


async def test_a_call_that_another_machine_has_sent_goes_back_to_it(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.add("roomy")

        def arrive(call):
            arrival = Arrival(call.exchange, call.passage)
            assert machines.dispatch._node.pass_on(arrival, NoCapacity("full"))
            assert not machines.dispatch._node.pass_on(arrival, FunctionCrashed())

        machines.dispatch.submit = arrive
        status, headers, _ = await ask(machines)
        assert (status, headers["x-martlet-refused"]) == (503, "no_capacity")
        assert machines.heard["roomy"] == []


async def test_a_drained_machine_gets_what_no_other_can_run(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.add("drained", warm=5)
        await machines.add("other")
        await machines.drain("drained")
        assert {(await ask(machines))[2] for _ in range(4)} == {b"other"}
        await machines.put(node("other", machines.view.nodes["other"].peer, capacity=0))
        async with asyncio.timeout(60):
            while (await ask(machines))[2] != b"drained":
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("stops", [False, True])
async def test_a_gateway_whose_machine_withdraws_lets_others_run_what_is_warm_here(cluster, serving, stops):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN, warm=5))
        machines.dispatch._node.pool(REVISION).held = 1
        await machines.add("other")
        if stops:
            machines.withdrawal.stop()
        else:
            await machines.drain(OWN)
        assert {(await ask(machines))[2] for _ in range(4)} == {b"other"}
        await machines.end("other")
        client = await machines.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        while not machines.here:
            await asyncio.sleep(0.01)
        machines.here[0].exchange.answer(204)


async def test_a_machine_that_stops_gets_nothing_even_where_no_other_is_left(cluster, serving):
    async with gateway(cluster, serving) as machines:
        await machines.add("stopping", warm=5, stopping=True)
        assert (await ask(machines))[0] == 503
        assert machines.heard["stopping"] == []


async def test_control_of_a_machine_that_withdraws_is_asked_only_where_there_is_no_other(cluster, serving):
    async with gateway(cluster, serving) as machines:
        machines.dispatch.submit = lambda call: machines.fleet.manage(
            call.exchange, b"GET /functions HTTP/1.1\r\n", b"x-request-id: r1\r\n"
        )
        await machines.add("a", roles=(Role.CONTROL,))
        await machines.add("b", roles=(Role.CONTROL,))
        await machines.drain("a")
        assert (await ask(machines))[2] == b"b"
        await machines.drain("b")
        assert (await ask(machines))[2] == b"a"


async def test_others_relieve_a_machine_while_one_is_there_that_does_not_withdraw(cluster, serving):
    async with gateway(cluster, serving) as machines:
        assert not machines.fleet.relieved
        await machines.add("other")
        assert machines.fleet.relieved
        await machines.drain("other")
        assert not machines.fleet.relieved
