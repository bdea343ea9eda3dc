"""What a cell may answer when it is given code: the code may answer in its place."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from martlet.drivers import contract
from martlet.drivers.driver import Loaded, LoadFailed
from tests.driver_rigs import SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def specialised(tmp_path: Path) -> Callable[[str], Awaitable[Loaded]]:
    """Gives code to a cell that answers 200 and this text."""

    async def specialise(text: str) -> Loaded:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text.encode()))
            writer.close()

        async with await asyncio.start_unix_server(answer, tmp_path / "sock"):
            return await contract.specialise(str(tmp_path / "sock"), {}, SECONDS)

    return specialise


@pytest.mark.parametrize("load_ms", ["0", "1.25", "7"])
async def test_an_answer_says_what_became_of_the_code(specialised, load_ms):
    loaded = await specialised(f'{{"mode": "sync", "load_ms": {load_ms}}}')

    assert loaded == Loaded(mode="sync", load_ms=float(load_ms))


@pytest.mark.parametrize("load_ms", ['"nan"', '"inf"', '"1"', "1e999", "-1", "null", "[]", "true"])
async def test_a_duration_that_is_none_is_no_answer(specialised, load_ms):
    with pytest.raises(LoadFailed, match="answered 200 and no result"):
        await specialised(f'{{"mode": "sync", "load_ms": {load_ms}}}')
