"""What functions print is kept: whole, tagged, and within bounds."""

import asyncio
import fcntl
import json
import os
import select
import threading
import time
from contextlib import suppress

import pytest

from martlet.errors import FunctionNotFound
from martlet.model import FunctionConfig, Revision
from martlet.node.lines import Line
from martlet.node.logs import LEFT_SIZE, READ_SIZE, LogReader, LogStore

pytestmark = pytest.mark.anyio

REVISION = Revision(function="f", number=3, config=FunctionConfig(), code="0" * 64, created=0)


ENTRY = {
    "time": 1.0,
    "function": "f",
    "revision": 3,
    "instance": "i1",
    "request_id": None,
    "stream": "stdout",
    "message": "hello",
}


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

    async def write_all(self, data):
        """Writes as an instance does: it waits when the FIFO is full."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return self.write(data)
                except BlockingIOError:
                    await asyncio.sleep(0.001)

    async def lines(self, count):
        """Waits until ``count`` lines are kept."""
        async with asyncio.timeout(60):
            while len(lines := await self.store.read("f", 100_000)) < count:
                await asyncio.sleep(0.005)
        return lines

    async def end_all(self):
        self.reader.close()
        os.close(self.end)
        await self.store.close()


@pytest.fixture
async def printer(tmp_path):
    printer = Printer(tmp_path)
    yield printer
    await printer.end_all()


def frame(message, request_id="r2", stream="info"):
    document = {"t": time.time(), "id": request_id, "s": stream, "m": message}
    return b"\x1e" + json.dumps(document).encode() + b"\n"


async def test_plain_lines_belong_to_the_running_request_and_frames_say_theirs(printer):
    printer.write(b"plain\n" + frame("framed"))
    plain, framed = await printer.lines(2)
    assert (plain.message, plain.request_id, plain.stream, plain.revision) == ("plain", "r1", "stdout", 3)
    assert (framed.message, framed.request_id, framed.stream) == ("framed", "r2", "info")
    assert (framed.function, framed.instance) == ("f", "i1")


async def test_reading_takes_the_last_lines_that_are_asked_for(printer):
    for number in range(5):
        printer.write(frame(f"a{number}", "ra") + frame(f"b{number}", "rb"))
    lines = await printer.lines(10)
    assert [line.message for line in await printer.store.read("f", 3)] == ["b3", "a4", "b4"]
    assert [line.message for line in await printer.store.read("f", 2, request_id="ra")] == ["a3", "a4"]
    later = await printer.store.read("f", since=lines[6].time)
    assert [line.message for line in later] == [line.message for line in lines if line.time > lines[6].time]
    assert await printer.store.read("f", 0) == []
    assert await printer.store.read("unknown") == []


async def test_what_was_handed_in_is_read_at_once(printer):
    printer.reader.close()
    printer.store.append(ENTRY)
    assert [line.message for line in await printer.store.read("f")] == ["hello"]


async def test_a_name_that_leads_elsewhere_is_no_function(printer):
    for name in ("../f", "f/../f", "", "."):
        with pytest.raises(FunctionNotFound):
            await printer.store.read(name)


async def test_an_instance_that_ends_leaves_its_last_words(printer):
    printer.write(frame("first") + b"no line end")
    printer.reader.close()
    printer.reader.close()
    lines = await printer.store.read("f")
    assert [line.message for line in lines] == ["first", "no line end"]


async def test_what_an_instance_leaves_behind_is_bounded_and_taken_in_turns(printer, monkeypatch):
    fcntl.fcntl(printer.end, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    line = b"x" * 63 + b"\n"
    with suppress(BlockingIOError):
        while True:
            printer.write(line * 64)
    taken = []
    monkeypatch.setattr(printer.store, "append", taken.append)
    monkeypatch.setattr(printer.store, "pause_after", lambda work: 0.001)
    printer.reader.close()
    assert len(taken) <= READ_SIZE / len(line)
    async with asyncio.timeout(60):
        while len(taken) < LEFT_SIZE / len(line):
            await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(taken) == LEFT_SIZE / len(line)


async def test_a_reader_ends_with_its_last_writer(tmp_path):
    printer = Printer(tmp_path)
    printer.write(b"last\n")
    os.close(printer.end)
    assert [line.message for line in await printer.lines(1)] == ["last"]
    printer.reader.close()
    await printer.store.close()


async def test_an_invocation_that_prints_too_much_is_cut_with_one_line_saying_so(tmp_path):
    printer = Printer(tmp_path, per_invocation=1000)
    for number in range(50):
        printer.write(frame(f"{number} " + "x" * 98))
    printer.write(frame("another", request_id="r3"))
    lines = await printer.lines(11)
    cut = [line for line in lines if line.request_id == "r2"]
    assert "cut here: it is over 1000 bytes" in cut[-1].message
    assert len(cut) == 10
    assert lines[-1].message == "another"
    await printer.end_all()


async def test_lines_of_no_invocation_have_no_bound_but_the_function_s(tmp_path):
    printer = Printer(tmp_path, per_invocation=100)
    printer.running = None
    for _ in range(20):
        printer.write(b"x" * 98 + b"\n")
    assert {line.message for line in await printer.lines(20)} == {"x" * 98}
    await printer.end_all()


async def test_instances_do_not_use_up_each_other_s_bounds(tmp_path):
    printer = Printer(tmp_path, per_invocation=1000)
    (tmp_path / "other").mkdir()
    os.mkfifo(tmp_path / "other/log")
    end = os.open(tmp_path / "other/log", os.O_RDWR | os.O_NONBLOCK)
    other = LogReader(str(tmp_path / "other/log"), REVISION, "i2", printer.store, lambda: None)
    os.write(end, frame("x" * 2000, "r2"))
    await printer.lines(1)
    printer.write(frame("heard", "r2"))
    assert (await printer.lines(2))[-1].message == "heard"
    other.close()
    os.close(end)
    await printer.end_all()


async def test_the_files_of_a_function_stay_within_their_bound(tmp_path):
    printer = Printer(tmp_path, per_function=20_000, per_invocation=1 << 30)
    for number in range(500):
        await printer.write_all(frame(f"{number:05} " + "x" * 200))
    async with asyncio.timeout(60):
        while (lines := await printer.lines(10))[-1].message[:5] != "00499":
            pass
    numbers = [int(line.message[:5]) for line in lines]
    assert numbers == list(range(numbers[0], 500))
    size = sum(file.stat().st_size for file in (tmp_path / "logs/f").iterdir())
    assert 10_000 < size <= 20_000
    await printer.end_all()


async def test_a_flood_is_held_back_in_the_writer_and_leaves_time_for_others(printer):
    printer.running = None
    loop = asyncio.get_running_loop()
    flooding = True

    async def flood():
        while flooding:
            try:
                printer.write(b"\n" * 4096)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    task = asyncio.ensure_future(flood())
    await printer.lines(1)
    used, share, pause_after = 0.0, 1.0, printer.store.pause_after

    def counted(work):
        nonlocal used, share
        share = used / (loop.time() - began)  # the pause after all that came before is over
        used += work
        return pause_after(work)

    printer.store.pause_after = counted
    began = loop.time()
    async with asyncio.timeout(60):
        while used < 0.2:
            await asyncio.sleep(0.001)
    assert share < 0.4
    flooding = False
    await task


async def test_lines_that_wait_for_a_slow_disk_hold_reading_back(printer, monkeypatch):
    monkeypatch.setattr("martlet.node.logs.MAX_UNWRITTEN", 50)
    released = threading.Event()
    printer.store._thread.submit(released.wait, 30)
    printer.running = None
    for text in (b"a\n", b"b\n", b"c\n"):
        printer.write(text * 2000)
    for _ in range(20):
        await asyncio.sleep(0.001)
    left = select.select([printer.end], [], [], 0)[0]  # some of it is in the FIFO still
    released.set()
    assert left
    assert len(await printer.lines(6000)) == 6000


async def test_a_full_disk_loses_lines_and_nothing_else(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    printer = Printer(tmp_path)
    printer.write(b"lost\n")
    async with asyncio.timeout(60):
        while printer.store._unwritten == 0:
            await asyncio.sleep(0.001)
        while printer.store._unwritten > 0:
            await asyncio.sleep(0.001)
    (tmp_path / "logs").unlink()
    printer.write(b"kept\n")
    assert [line.message for line in await printer.lines(1)] == ["kept"]
    await printer.end_all()


async def test_lines_are_followed_as_they_come_and_forgotten_on_request(printer):
    following = printer.store.follow("f")
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    printer.write(b"live\n")
    assert (await asyncio.wait_for(first, 60)).message == "live"
    await printer.store.forget("f")
    assert await printer.store.read("f") == []
    async with asyncio.timeout(60):
        assert [line async for line in following] == []


async def test_following_from_the_tail_misses_and_repeats_nothing(printer):
    printer.reader.close()
    for number in range(10):
        printer.store.append(ENTRY | {"message": str(number)})
    following = printer.store.follow("f", tail=3)
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    for number in range(10, 13):
        printer.store.append(ENTRY | {"message": str(number)})
    async with asyncio.timeout(60):
        seen = [(await first).message] + [(await anext(following)).message for _ in range(5)]
    assert seen == ["7", "8", "9", "10", "11", "12"]
    await following.aclose()


async def test_a_slow_follower_misses_the_oldest(printer, monkeypatch):
    monkeypatch.setattr("martlet.node.logs.FOLLOW_BACKLOG", 3)
    following = printer.store.follow("f")
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    for number in range(10):
        printer.store.append(ENTRY | {"message": str(number)})
    async with asyncio.timeout(60):
        assert [(await first).message, (await anext(following)).message] == ["7", "8"]
    await following.aclose()


async def test_closing_writes_what_is_pending_and_ends_followers(tmp_path):
    store = LogStore(tmp_path, "lane-0", 1 << 20, 1 << 16)
    following = store.follow("f")
    waiting = asyncio.ensure_future(anext(following, None))
    await asyncio.sleep(0)
    store.append(ENTRY)
    assert (await asyncio.wait_for(waiting, 60)).message == "hello"
    await store.close()
    assert await asyncio.wait_for(anext(following, None), 60) is None
    store.append(ENTRY)
    again = LogStore(tmp_path, "lane-0", 1 << 20, 1 << 16)
    assert [line.message for line in await again.read("f")] == ["hello"]
    await again.close()


async def test_what_the_platform_says_of_an_end_comes_behind_all_that_was_printed(printer):
    printer.write(b"printed before\n")
    printer.reader.conclude(Line(time.time(), "r1", "error", "it exited"))
    printer.reader.conclude(Line(time.time(), "r9", "error", "what follows from that"))
    await asyncio.sleep(0.01)
    printer.write(frame("printed after") + b"no end")
    printer.reader.close()
    lines = await printer.lines(4)
    assert [line.message for line in lines] == ["printed before", "printed after", "no end", "it exited"]
    assert [line.source for line in lines] == ["function"] * 3 + ["platform"]
    assert lines == sorted(lines, key=lambda line: line.time)
    assert (lines[-1].request_id, lines[-1].stream) == ("r1", "error")


async def test_what_the_platform_says_is_kept_of_an_invocation_that_was_cut_too(tmp_path):
    printer = Printer(tmp_path, per_invocation=64)
    printer.write(b"x" * 100 + b"\n")
    printer.reader.conclude(Line(time.time(), "r1", "error", "it exited"))
    printer.reader.close()
    cut, last = await printer.lines(2)
    assert (cut.stream, cut.source) == ("warning", "platform")
    assert last.message == "it exited"
    await printer.end_all()
