"""Asynchronous invocations, as the management API shows them."""

import pytest

from martlet.model import InvocationState
from martlet.storage.invocations import Request
from tests.unit.control.conftest import assert_problem

pytestmark = pytest.mark.anyio

LETTERS = "/functions/hello/dead-letters"


@pytest.fixture
async def accepted(platform):
    """An invocation that waits."""
    function = await platform.create()
    request = Request(
        function="hello",
        target="hello@latest",
        method="POST",
        path="/a?b=c",
        headers=b"x-one: 1\r\n",
        created=function["created"],
        accepted=function["created"] + 1,
        body=b"body",
    )
    return await platform.control.invocations.accept(request)


@pytest.fixture
async def dead(platform, accepted):
    """The same, given up."""
    queue = platform.broker.queue("hello")
    while taken := await queue.take(1, 600):
        await queue.nack(taken[0])
    failed = accepted.model_copy(update={"state": InvocationState.FAILED, "attempts": 5})
    await platform.control.invocations.note(failed)
    return failed


async def test_an_invocation_is_described(client, accepted):
    answer = await client.get(f"/invocations/{accepted.id}")
    assert answer.status_code == 200
    assert answer.json() == accepted.model_dump(mode="json")


async def test_an_invocation_that_nobody_knows_is_not_found(client):
    assert_problem(await client.get("/invocations/nothing"), 404, "not_found")


async def test_those_who_may_not_touch_the_function_do_not_see_it(client, accepted):
    limited = {"x-martlet-functions": "another"}
    assert_problem(await client.get(f"/invocations/{accepted.id}", headers=limited), 404, "not_found")
    assert_problem(await client.get(LETTERS, headers=limited), 403, "forbidden")


async def test_dead_letters_are_listed_retried_and_dropped(client, platform, dead):
    (letter,) = (await client.get(LETTERS)).json()
    assert letter == {
        "id": dead.id,
        "target": "hello@latest",
        "method": "POST",
        "path": "/a?b=c",
        "accepted": dead.accepted,
        "died": letter["died"],
        "attempts": 5,
        "bytes": 4,
    }
    assert (await client.post(f"{LETTERS}/{dead.id}/retry")).status_code == 204
    assert (await client.get(LETTERS)).json() == []
    assert (await client.get(f"/invocations/{dead.id}")).json()["state"] == "waiting"
    assert (await platform.broker.queue("hello").depth()).ready == 1


async def test_a_dead_letter_that_is_dropped_is_gone(client, dead):
    assert (await client.delete(f"{LETTERS}/{dead.id}")).status_code == 204
    assert (await client.get(LETTERS)).json() == []
    for answer in (
        await client.delete(f"{LETTERS}/{dead.id}"),
        await client.post(f"{LETTERS}/{dead.id}/retry"),
    ):
        assert_problem(answer, 404, "not_found")
    assert (await client.get(f"/invocations/{dead.id}")).json()["state"] == "failed"


async def test_a_function_takes_what_waits_for_it_along(client, platform, accepted):
    assert (await client.delete("/functions/hello")).status_code == 204
    assert await platform.broker.names() == []
    invocation = (await client.get(f"/invocations/{accepted.id}")).json()
    assert (invocation["state"], invocation["error"]["code"]) == ("failed", "function_not_found")
    assert_problem(await client.get(LETTERS), 404, "function_not_found")


async def test_a_queue_that_is_out_of_reach_is_said_to_be(client, platform, accepted):
    await platform.broker.close()
    assert_problem(await client.get(f"/invocations/{accepted.id}"), 503, "unavailable")
    assert_problem(await client.get(LETTERS), 503, "unavailable")
    assert (await client.get("/metrics")).status_code == 200
