import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from martlet.model import InvocationView
from martlet.storage.store import StoreError
from martlet.telemetry.history import History, Record

pytestmark = pytest.mark.anyio


RECORDER = """
import asyncio, pathlib, sys
from martlet.telemetry.history import History

async def main():
    history = History(pathlib.Path(sys.argv[1]), 5)
    history.record(("r0", "hello", 3, 200, False, 1.0, 1.0, 1.0, 1.0, None))
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def open_history(tmp_path: Path) -> Callable[..., History]:
    return lambda kept=5: History(tmp_path / "history.db", kept)


@pytest.fixture
async def history(open_history: Callable[..., History]) -> AsyncIterator[History]:
    history = open_history()
    yield history
    await history.close()


def record(number: int, function: str = "hello", error: str | None = None) -> Record:
    return (
        f"r{number}",
        function,
        3,
        500 if error else 200,
        number == 0,
        100.5 + number,
        1.0,
        2.5,
        3.0,
        error,
    )


async def ids(history: History, function: str = "hello", limit: int = 100) -> list[str]:
    return [view.id for view in await history.list(function, limit)]


async def test_invocations_are_listed_newest_first(history: History) -> None:
    for number in range(3):
        history.record(record(number))
    assert await ids(history) == ["r2", "r1", "r0"]
    assert await ids(history, limit=2) == ["r2", "r1"]
    assert await ids(history, "other") == []


async def test_an_invocation_is_listed_as_it_was_recorded(history: History) -> None:
    history.record(record(0, error="function_error"))
    assert await history.list("hello", 1) == [
        InvocationView(
            id="r0",
            function="hello",
            revision=3,
            status=500,
            cold=True,
            started=100.5,
            queue_ms=1.0,
            start_ms=2.5,
            run_ms=3.0,
            error="function_error",
        )
    ]


async def test_only_the_last_are_kept_of_each_function(history: History) -> None:
    history.record(record(1, "quiet"))
    for number in range(12):
        history.record(record(number))
        if number % 4 == 0:
            await history.flush()
    assert await ids(history) == ["r11", "r10", "r9", "r8", "r7"]
    assert await ids(history, "quiet") == ["r1"]


async def test_the_history_outlives_the_process(open_history: Callable[..., History]) -> None:
    first = open_history()
    for number in range(3):
        first.record(record(number))
    await first.close()
    second = open_history()
    second.record(record(3))
    assert await ids(second) == ["r3", "r2", "r1", "r0"]
    await second.close()


async def test_keeping_fewer_than_before_shows_fewer(open_history: Callable[..., History]) -> None:
    first = open_history()
    for number in range(5):
        first.record(record(number))
    await first.close()
    second = open_history(kept=2)
    assert await ids(second) == ["r4", "r3"]
    await second.close()


async def test_keeping_none_keeps_none(open_history: Callable[..., History]) -> None:
    history = open_history(kept=0)
    history.record(record(1))
    assert await ids(history) == []
    await history.close()


async def test_what_is_not_kept_is_deleted(open_history: Callable[..., History]) -> None:
    first = open_history()
    for number in range(12):
        first.record(record(number))
        await first.flush()
    await first.close()
    second = open_history(kept=100)
    assert await ids(second) == ["r11", "r10", "r9", "r8", "r7"]
    await second.close()


async def test_a_forgotten_function_starts_anew(history: History) -> None:
    history.record(record(0))
    await history.flush()
    history.record(record(1))
    history.record(record(1, "other"))
    await history.forget("hello")
    assert await ids(history) == []
    history.record(record(2))
    assert await ids(history) == ["r2"]
    assert await ids(history, "other") == ["r1"]


async def test_records_survive_a_kill_once_they_are_a_second_old(
    open_history: Callable[..., History], tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", RECORDER, tmp_path / "history.db")
    async with asyncio.timeout(60):
        while not written(tmp_path / "history.db"):
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    history = open_history()
    assert await ids(history) == ["r0"]
    await history.close()


def written(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM invocation").fetchone()[0] > 0
    except sqlite3.OperationalError:
        return False  # the file is not there yet


async def test_lists_and_records_may_overlap(history: History) -> None:
    async def invoke(function: str) -> None:
        for number in range(20):
            history.record(record(number, function))
            await asyncio.sleep(0)
            assert (await ids(history, function, limit=1)) == [f"r{number}"]

    await asyncio.gather(*(invoke(f"f{number}") for number in range(5)))


async def test_a_file_that_cannot_be_written_is_an_error_for_those_who_ask(tmp_path: Path) -> None:
    history = History(tmp_path / "nowhere" / "history.db", 5)
    await history.close()
    history.record(record(0))
    with pytest.raises(StoreError):
        await history.list("hello", 1)
    await history.close()
