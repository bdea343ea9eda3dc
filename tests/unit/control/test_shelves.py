"""What machines that do not answer have put aside is shown with the rest, and removed when nobody needs it."""

import asyncio
from contextlib import aclosing

import pytest

from martlet.control.following import Missing, followed
from martlet.control.shelves import Shelves
from martlet.model import InvocationView, LogLine
from martlet.storage.log_shelf import INVOCATIONS, LogShelf, ShelfError, Shelved, made_at
from tests.unit.control.test_lanes_views import invocation, line

pytestmark = pytest.mark.anyio


def shelved(lane, *messages, machine="gone", number=1):
    """Returns where a lane of a machine puts these lines, and what it writes there."""
    lines = [
        LogLine.model_validate(line(at, message)).model_dump_json()
        for at, message in enumerate(messages, 10 * number)
    ]
    return lane, machine, number, "".join(f"{each}\n" for each in lines).encode()


@pytest.fixture
async def shelf(platform):
    """The log store of a platform."""
    shelf = LogShelf.memory()
    control = platform.control
    shelves = Shelves(shelf, platform.store, control.view, 1000, lambda: True)
    control.machines._shelves = control.shelves = shelves
    await platform.create("hello")
    yield shelf
    await shelves.close()


async def put(platform, shelf, lane, machine, number, data, made=None):
    made = made_at(platform.control.view.functions["hello"]) if made is None else made
    await shelf.put(Shelved("hello", made, machine, lane, number), data)


async def test_logs_of_a_machine_that_is_gone_are_read_from_the_store(platform, client, shelf):
    platform.lanes[0].lines = [line(15, "here")]
    await put(platform, shelf, *shelved("lane-0", "a", "b"))
    await put(platform, shelf, *shelved("lane-0", "c", number=2))
    await put(platform, shelf, *shelved("lane-1", "d", "e"))
    answer = await client.get("/functions/hello/logs")
    assert [one["message"] for one in answer.json()] == ["a", "d", "b", "e", "here", "c"]
    assert "x-faas-missing" not in answer.headers
    answer = await client.get("/functions/hello/logs?tail=2")
    assert [one["message"] for one in answer.json()] == ["here", "c"]


async def test_who_answers_is_believed_and_not_read_twice(platform, client, shelf):
    own = platform.control.machines.own
    platform.lanes[0].lines = [line(10, "a"), line(11, "b")]
    await put(platform, shelf, *shelved("lane-0", "a", machine=own))
    await put(platform, shelf, *shelved("lane-7", "of a lane that is no more", machine=own))
    answer = await client.get("/functions/hello/logs")
    assert [one["message"] for one in answer.json()] == ["a", "of a lane that is no more", "b"]
    await platform.lanes[0].stop()
    answer = await client.get("/functions/hello/logs")
    assert [one["message"] for one in answer.json()] == ["a", "of a lane that is no more"]
    assert answer.headers["x-faas-missing"] == own


async def test_who_follows_has_the_past_of_machines_that_are_gone_and_no_line_twice(
    platform, client, shelf, monkeypatch
):
    monkeypatch.setattr("martlet.control.following.LOOK_AGAIN", 0.02)
    platform.lanes[0].lines = [line(10, "a"), line(11, "b")]
    await put(platform, shelf, *shelved("lane-0", "a", machine=platform.control.machines.own))
    await put(platform, shelf, *shelved("lane-0", "of one that is gone"))
    await platform.lanes[0].stop()
    async with asyncio.timeout(60), aclosing(followed(platform.control.machines, "hello", 9)) as all_of_it:
        lines = (each async for each in all_of_it if not isinstance(each, Missing))
        assert {(await anext(lines)).message for _ in range(2)} == {"a", "of one that is gone"}
        await platform.lanes[0].start()
        assert (await anext(lines)).message == "b"


async def test_invocations_of_a_machine_that_is_gone_are_read_from_the_store(platform, client, shelf):
    platform.lanes[0].invocations = [invocation(2)]
    runs = [InvocationView.model_validate(invocation(number)).model_dump_json() for number in (3, 1)]
    await put(platform, shelf, "lane-0", "gone", INVOCATIONS, "\n".join(runs).encode())
    answer = await client.get("/functions/hello/invocations")
    assert [one["id"] for one in answer.json()] == ["3", "2", "1"]
    assert (await client.get("/functions/hello/logs")).json() == []


async def test_a_log_store_that_is_out_of_reach_is_named(platform, client, shelf):
    async def refuse(*_):
        raise ShelfError("no")

    platform.lanes[0].lines, platform.lanes[0].invocations = [line(1, "here")], [invocation(2)]
    shelf.list = refuse
    for path in ("logs", "invocations"):
        answer = await client.get(f"/functions/hello/{path}")
        assert (len(answer.json()), answer.headers["x-faas-missing"]) == (1, "log_store")
    async with asyncio.timeout(60), aclosing(followed(platform.control.machines, "hello", 9)) as lines:
        assert (await anext(lines)).message == "here"
        assert await anext(lines) == Missing(missing=("log_store",))


async def test_what_is_put_aside_goes_with_its_function(platform, client, shelf):
    await put(platform, shelf, *shelved("lane-0", "a"))
    await platform.create("other")
    other = Shelved("other", made_at(platform.control.view.functions["other"]), "gone", "lane-0", 1)
    await shelf.put(other, b"")
    assert (await client.delete("/functions/hello")).status_code == 204
    async with asyncio.timeout(60):
        while [found.function for found in await shelf.list()] != ["other"]:
            await asyncio.sleep(0.01)


async def test_a_sweep_removes_what_is_of_no_function_and_what_is_beyond_the_bound(platform, client, shelf):
    own = platform.control.machines.own
    platform.control.view.nodes[own] = None  # it is alive
    await put(platform, shelf, "lane-0", "gone", 1, b"x" * 600)
    await put(platform, shelf, "lane-0", own, 1, b"x" * 5000)
    await asyncio.sleep(0.01)  # the store tells times apart
    await put(platform, shelf, "lane-0", "gone too", 9, b"x" * 600)
    await put(platform, shelf, "lane-0", "gone", 1, b"x", made=7)  # of a function that had the name before
    await shelf.put(Shelved("nobody", 7, own, "lane-0", 1), b"x")
    platform.control.shelves.sweep_soon()
    async with asyncio.timeout(60):
        while len(found := await shelf.list()) > 2:
            await asyncio.sleep(0.01)
    assert {(each.function, each.node, each.number) for each in found} == {
        ("hello", own, 1),
        ("hello", "gone too", 9),
    }
