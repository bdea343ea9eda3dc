"""What a lane puts aside of its logs and history."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from martlet.model import InvocationView
from martlet.node.log_files import PIECES
from martlet.storage.log_shelf import INVOCATIONS, LogShelf, ShelfError
from tests.contract.test_log_shelf import Lane, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def shipping(folder, shelf, **options):
    lane = Lane(folder, shelf, **options)
    await lane.open()
    try:
        yield lane
    finally:
        await lane.close()


async def has(lane, *messages):
    shipped = await lane.shipped()
    return all(f'"{message}"' in shipped for message in messages)


async def test_what_is_printed_is_shipped_while_it_grows(tmp_path):
    async with shipping(tmp_path, LogShelf.memory()) as lane:
        lane.print("one")
        await until(lambda: has(lane, "one"))
        lane.print("two", "three")
        await until(lambda: has(lane, "three"))
        assert (await lane.shipped()).count("message") == 3


async def test_invocations_are_shipped_as_people_see_them(tmp_path):
    async with shipping(tmp_path, LogShelf.memory()) as lane:
        for number in range(3):
            lane.history.record((f"r{number}", "f", 1, 200, True, 1.0, 0.0, 2.0, 3.0, None))
        await lane.history.flush()

        async def there():
            return [found for found in await lane.shelf.list("f", lane.made) if found.number == INVOCATIONS]

        await until(there)
        (found,) = await there()
        runs = [
            InvocationView.model_validate_json(line) for line in (await lane.shelf.get(found)).splitlines()
        ]
        assert runs == list(await lane.history.list("f", 10))
        assert [run.id for run in runs] == ["r2", "r1", "r0"]


async def test_a_lane_that_ends_leaves_nothing_behind(tmp_path):
    shelf = LogShelf.memory()
    async with shipping(tmp_path, shelf) as lane:
        lane.shipping._every = 3600
        lane.print("last words")
    assert await has(lane, "last words")


async def test_a_lane_that_was_killed_ships_the_rest_in_its_next_life_and_nothing_twice(tmp_path):
    shelf = LogShelf.memory()
    async with shipping(tmp_path, shelf) as lane:
        lane.print("one")
        await until(lambda: has(lane, "one"))
        lane.shipping._rounds.cancel()  # from here on it is as good as killed
        lane.print("two")
        await lane.logs.read("f")
        lane.shipping.round = _nothing
    async with shipping(tmp_path, shelf) as lane:
        await until(lambda: has(lane, "two"))
        assert (await lane.shipped()).count("message") == 2


async def _nothing():
    pass


async def test_what_is_kept_no_longer_here_goes_from_the_shelf(tmp_path):
    async with shipping(tmp_path, LogShelf.memory(), bytes_per_function=PIECES * 500) as lane:
        lane.print("first")
        await until(lambda: has(lane, "first"))
        for number in range(20):
            lane.print(f"{number:03}" + "x" * 400)
        await until(lambda: has(lane, "019" + "x" * 400))

        async def gone():
            return not await has(lane, "first")

        await until(gone)
        kept = [line.message for line in await lane.logs.read("f", 1000)]
        assert all([await has(lane, message) for message in kept])
        assert (await lane.shipped()).count("message") == len(kept)


async def test_what_goes_before_it_is_shipped_is_counted_and_the_rest_is_shipped_later(tmp_path):
    shelf = LogShelf.memory()
    put = shelf.put

    refused = asyncio.Event()

    async def refuse(*_):
        refused.set()
        raise ShelfError("no")

    async with shipping(tmp_path, shelf, bytes_per_function=PIECES * 500) as lane:
        lane.print("first")
        await until(lambda: has(lane, "first"))
        shelf.put = refuse
        for number in range(30):
            lane.print(f"{number:03}" + "x" * 400)
        await asyncio.wait_for(refused.wait(), 60)
        await lane.shipping.round()  # the one that was refused has ended
        assert lane.stats.logs_wait_since is not None
        kept = await lane.logs.read("f", 1000)
        lines_lost, size = 31 - len(kept), lane.logs.files.pieces("f")[31]  # one line is a piece
        assert lane.stats.logs_dropped == (lines_lost - 1) * size  # the first was shipped
        shelf.put = put
        await until(lambda: has(lane, kept[0].message, kept[-1].message))
        assert (await lane.shipped()).count("message") == len(kept)


async def test_a_function_made_anew_has_none_of_the_logs_of_the_old(tmp_path):
    async with shipping(tmp_path, LogShelf.memory()) as lane:
        lane.print("old")
        await until(lambda: has(lane, "old"))
        await lane.view.catch_up(await lane.registry.delete_function("f"))
        await lane.logs.forget("f")
        await lane.make(2.0)
        lane.print("new")
        await until(lambda: has(lane, "new"))
        assert not await has(lane, "old")


async def test_what_is_printed_before_a_function_is_there_is_shipped_once_it_is(tmp_path):
    async with shipping(tmp_path, LogShelf.memory()) as lane:
        await lane.view.catch_up(await lane.registry.delete_function("f"))
        lane.print("loading")
        await lane.logs.read("f")
        await lane.shipping.round()
        assert await lane.shelf.list() == []
        await lane.make(2.0)
        await until(lambda: has(lane, "loading"))
