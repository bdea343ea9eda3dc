"""Calls that only a machine may run which is out of reach wait for it, or for who inherits."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from martlet.errors import Overloaded
from martlet.gateway import fleet, waiting_room
from martlet.http.refusal import refuse
from tests.unit.gateway.machines import OWN, ask, gateway, node

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def one_that_dies_with_all_the_shares(cluster, serving):
    async with gateway(cluster, serving, runs=True) as machines:
        await machines.put(node(OWN))
        await machines.add("other")
        await machines.add("dying")
        await machines.divide(dying=10)
        assert (await ask(machines))[2] == b"dying"
        await machines.end("dying")
        yield machines
        assert machines.here == []


def deferred(machines):
    return machines.stats.total().deferred


async def waits(asked):
    done, _ = await asyncio.wait(asked, timeout=5 * waiting_room.EVERY)
    return not done


async def test_calls_wait_while_who_may_have_instances_is_out_of_reach(cluster, serving):
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        asked = [asyncio.create_task(ask(machines)) for _ in range(3)]
        assert await waits(asked)
        await machines.divide(other=10)
        assert {(await each)[::2] for each in asked} == {(200, b"other")}
        assert deferred(machines) == 3


async def test_calls_that_wait_try_again_who_has_not_heard_yet_that_it_inherits(cluster, serving):
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        asked = asyncio.create_task(ask(machines))
        assert await waits([asked])

        def hears_late(exchange):
            if len(machines.heard["heir"]) < 3:
                refuse(exchange, Overloaded("it is another's"), ())
            else:
                exchange.answer(200, b"heir")

        await machines.add("heir", hears_late)
        await machines.divide(heir=10)
        assert (await asked)[::2] == (200, b"heir")


async def test_calls_that_wait_go_to_who_was_out_of_reach_once_it_is_started_anew(
    cluster, serving, monkeypatch
):
    monkeypatch.setattr(fleet, "DOUBT", 2 * waiting_room.PATIENCE)
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        asked = [asyncio.create_task(ask(machines)) for _ in range(3)]
        assert await waits(asked)
        await machines.add("dying", port=machines.view.nodes["dying"].peer.port, started=1.0)
        assert {(await each)[::2] for each in asked} == {(200, b"dying")}, "it is doubted on"


@pytest.mark.usefixtures("impatient")
async def test_nobody_waits_longer_than_the_patience(cluster, serving):
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        status, _, body = await ask(machines)
        assert (status, b"max_instances" in body) == (429, True)
        assert deferred(machines) == 1


async def test_no_more_wait_than_max_queue_lets(cluster, serving):
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        asked = [asyncio.create_task(ask(machines)) for _ in range(4)]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [(await each)[0] for each in done] == [429]
        await machines.divide(other=10)
        assert [(await each)[0] for each in waiting] == [200] * 3


async def test_nobody_waits_for_who_may_have_no_instance(cluster, serving):
    async with one_that_dies_with_all_the_shares(cluster, serving) as machines:
        await machines.add("full", capacity=0)
        await machines.divide(full=10)
        async with asyncio.timeout(waiting_room.PATIENCE / 2):
            assert (await ask(machines))[0] == 429
        assert deferred(machines) == 0
