"""What functions print is kept: whole, tagged, and within bounds."""

import asyncio
import json
import os

import pytest

from martlet.model import FunctionConfig, Revision
from martlet.node.logs import LogReader, LogStore

pytestmark = pytest.mark.anyio

REVISION = Revision(function="f", number=3, config=FunctionConfig(), code="0" * 64, created=0)


class Printer:
    """An instance's end of the FIFO, and the store its lines reach."""

    def __init__(self, directory, per_function=1 << 20, per_invocation=1 << 16):
        os.mkfifo(directory / "log")
        self.end = os.open(directory / "log", os.O_RDWR | os.O_NONBLOCK)
        self.store = LogStore(directory / "logs", "lane-0", per_function, per_invocation)
        self.running = "r1"
        self.reader = LogReader(str(directory / "log"), REVISION, "i1", self.store, lambda: self.running)

    def write(self, data):
        return os.write(self.end, data)

    async def lines(self, count, **query):
        """Waits until ``count`` lines are kept."""
        async with asyncio.timeout(10):
            while len(lines := await self.store.read("f", 10_000, **query)) < count:
                await asyncio.sleep(0.005)
        return lines


@pytest.fixture
async def printer(tmp_path):
    printer = Printer(tmp_path)
    yield printer
    printer.reader.close()
    os.close(printer.end)
    await printer.store.close()


def frame(message, request_id="r2", stream="info"):
    return b"\x1e" + json.dumps({"t": 5.0, "id": request_id, "s": stream, "m": message}).encode() + b"\n"


async def test_plain_lines_belong_to_the_running_request_and_frames_say_theirs(printer):
    printer.write(b"plain\n" + frame("framed"))
    plain, framed = await printer.lines(2)
    assert (plain.message, plain.request_id, plain.stream, plain.revision) == ("plain", "r1", "stdout", 3)
    assert (framed.message, framed.request_id, framed.stream, framed.time) == ("framed", "r2", "info", 5.0)
    assert [line.message for line in await printer.store.read("f", request_id="r2")] == ["framed"]
    assert [line.message for line in await printer.store.read("f", since=6.0)] == ["plain"]


@pytest.mark.parametrize(
    "hostile",
    [b"\xff\xfe\x00\n", b"\x1enot json\n", b"\x1e[]\n", b'\x1e{"t":"x","id":1,"s":2,"m":3}\n', b"half\x1e{}\n"],
)
async def test_odd_input_is_kept_as_text_and_what_follows_is_read(printer, hostile):
    printer.write(hostile + b"after\n")
    assert (await printer.lines(2))[-1].message == "after"


async def test_an_endless_line_is_cut_into_pieces(printer):
    for _ in range(10):
        printer.write(b"a" * 4096)
    lines = await printer.lines(2)
    assert set("".join(line.message for line in lines)) == {"a"}


async def test_an_invocation_that_prints_too_much_is_cut_with_one_line_saying_so(tmp_path):
    printer = Printer(tmp_path, per_invocation=1000)
    for number in range(50):
        printer.write(frame(f"{number} " + "x" * 98))
    printer.write(frame("another", request_id="r3"))
    lines = await printer.lines(11)
    assert [line.message for line in lines if line.request_id == "r2"][-1].endswith("cut at 1000 bytes")
    assert sum(line.request_id == "r2" for line in lines) == 10
    assert lines[-1].message == "another"
    printer.reader.close()
    os.close(printer.end)
    await printer.store.close()


async def test_the_files_of_a_function_stay_within_their_bound(tmp_path):
    printer = Printer(tmp_path, per_function=20_000, per_invocation=1 << 30)
    for number in range(500):
        printer.write(frame(f"{number:05} " + "x" * 200))
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    lines = await printer.lines(10)
    async with asyncio.timeout(10):
        while lines[-1].message[:5] != "00499":
            lines = await printer.lines(10)
    size = sum(file.stat().st_size for file in (tmp_path / "logs/f").iterdir())
    assert size < 40_000
    printer.reader.close()
    os.close(printer.end)
    await printer.store.close()


async def test_a_flood_is_held_back_in_the_writer(printer):
    printer.running = None
    written = 0
    began = asyncio.get_running_loop().time()
    while (took := asyncio.get_running_loop().time() - began) < 0.5:
        try:
            written += printer.write(b"y" * 4000 + b"\n")
        except BlockingIOError:
            await asyncio.sleep(0)
    assert written < 10 * 1024 * 1024 * (took / 0.5)


async def test_lines_are_followed_as_they_come_and_forgotten_on_request(printer):
    following = printer.store.follow("f")
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    printer.write(b"live\n")
    assert (await asyncio.wait_for(first, 10)).message == "live"
    await following.aclose()
    await printer.lines(1)
    await printer.store.forget("f")
    assert await printer.store.read("f") == []
