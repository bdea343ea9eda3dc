"""What functions print: read from each instance's FIFO, kept in bounded files, followed live."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic, thread_time, time
from typing import Any, ParamSpec, TypeVar

import orjson
import structlog

from martlet.model import PLATFORM, LogLine, Revision
from martlet.node.lines import Line, LineParser
from martlet.node.log_files import LogFiles
from martlet.node.pace import Pace

log = structlog.get_logger()

READ_SIZE = 4096
"""Bytes read in one turn of the event loop: four thousand empty lines take it some milliseconds."""
LEFT_SIZE = 64 * 1024
"""Bytes read at most of what an instance leaves behind: what a FIFO holds, if it was not made larger."""
SHARE = 0.1
"""Share of the event loop's time that may go into reading logs, all instances together."""
BURST = 0.02
"""Seconds of it that may be used at once."""
FLUSH_DELAY = 0.05
MAX_UNWRITTEN = 10_000
"""Lines that may wait for the disk; beyond, reading pauses."""
COUNTED_INVOCATIONS = 256
FOLLOW_BACKLOG = 2000

P = ParamSpec("P")
Result = TypeVar("Result")

Entry = dict[str, Any]
"""The members of a `LogLine`: making the model itself would cost more than all the rest."""


def entry_of(revision: Revision, instance: str, line: Line) -> Entry:
    """Returns a line that an instance has printed."""
    return {
        "time": line.time,
        "function": revision.function,
        "revision": revision.number,
        "instance": instance,
        "request_id": line.request_id,
        "stream": line.stream,
        "message": line.message,
    }


def said_by_platform(revision: Revision, instance: str, line: Line) -> Entry:
    """Returns a line of the platform's own, of an instance or (empty) of none."""
    return {**entry_of(revision, instance, line), "source": PLATFORM}


class LogReader:
    """Reads what one instance prints and hands it to the store, as fast as the lane can afford.

    Beyond that the FIFO fills up, and the instance waits in its own write.

    Args:
        path: the instance's FIFO.
        revision: whose instance it is.
        instance: its id.
        store: where lines go.
        request_id: returns the request that runs now, where it is exactly one; plain lines belong to it.
    """

    def __init__(
        self,
        path: str,
        revision: Revision,
        instance: str,
        store: LogStore,
        request_id: Callable[[], str | None],
    ) -> None:
        self._revision = revision
        self._instance = instance
        self._store = store
        self._request_id = request_id
        self._parser = LineParser()
        self._written: OrderedDict[str, int] = OrderedDict()
        self._resuming: asyncio.TimerHandle | None = None
        self._left = LEFT_SIZE
        self._closing = False
        self._latest = 0.0
        self._conclusion: Line | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._descriptor, self._readable)

    def conclude(self, line: Line) -> None:
        """Keeps what the platform says of the instance's end behind all that it has printed. The first word counts."""
        self._conclusion = self._conclusion or line

    def close(self) -> None:
        """Takes what the instance has left, then lets go of the FIFO; harmless when that was asked before."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._descriptor)
            if self._resuming is not None:
                self._resuming.cancel()
            self._take_left()

    def _readable(self) -> None:
        size, pause = self._read()
        if not size:  # nobody has the FIFO open for writing any more
            self._loop.remove_reader(self._descriptor)
        elif pause:
            self._loop.remove_reader(self._descriptor)
            self._resuming = self._loop.call_later(
                pause, self._loop.add_reader, self._descriptor, self._readable
            )

    def _take_left(self) -> None:
        size = 1
        while size and self._left > 0:
            size, pause = self._read()
            self._left -= size
            if pause:
                self._resuming = self._loop.call_later(pause, self._take_left)
                return
        self._keep(self._parser.end(time(), self._request_id()))
        if self._conclusion is not None:
            self._say(self._conclusion._replace(time=max(self._latest, self._conclusion.time)))
        os.close(self._descriptor)

    def _read(self) -> tuple[int, float]:
        """Reads a piece. Returns its size, and how many seconds to wait before the next."""
        began = thread_time()  # of this thread alone: to be made to wait by others is no work
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            data = b""
        self._keep(self._parser.feed(data, time(), self._request_id()))
        return len(data), self._store.pause_after(thread_time() - began)

    def _keep(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.request_id is None:
                self._append(line)
            else:
                self._append_within(line, line.request_id)

    def _append_within(self, line: Line, request_id: str) -> None:
        """Keeps a line of an invocation, unless that has printed too much."""
        limit = self._store.bytes_per_invocation
        before = self._written.pop(request_id, 0)
        self._written[request_id] = after = before + len(line.message) + 1
        if len(self._written) > COUNTED_INVOCATIONS:
            self._written.popitem(last=False)
        if after <= limit:
            self._append(line)
        elif before <= limit:
            cut = f"the log of this invocation is cut here: it is over {limit} bytes"
            self._say(line._replace(stream="warning", message=cut))

    def _append(self, line: Line) -> None:
        if line.time > self._latest:
            self._latest = line.time
        self._store.append(entry_of(self._revision, self._instance, line))

    def _say(self, line: Line) -> None:
        self._store.append(said_by_platform(self._revision, self._instance, line))


class LogStore:
    """The logs of one lane. A thread writes lines a moment after they came, and reads them.

    Args:
        directory: of the log files, shared by all lanes.
        lane: name of this lane.
        bytes_per_function: kept of each function by this lane.
        bytes_per_invocation: kept of one invocation; a last line says that it was cut.

    Attributes:
        files: where lines are kept; for `in_thread` only.
        on_growth: called with the functions whose lines are about to be written.
    """

    def __init__(
        self, directory: Path, lane: str, bytes_per_function: int, bytes_per_invocation: int
    ) -> None:
        self.bytes_per_invocation = bytes_per_invocation
        self.files = LogFiles(directory, lane, bytes_per_function)
        self._pace = Pace(SHARE, BURST)
        self._pending: dict[str, list[Entry]] = {}
        self._unwritten = 0
        self._followers: dict[str, set[asyncio.Queue[Entry | None]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.on_growth: Callable[[Iterable[str]], None] = lambda functions: None

    def append(self, entry: Entry) -> None:
        """Keeps a line. What comes after `close` is lost."""
        if self._closed:
            return
        function = entry["function"]
        self._pending.setdefault(function, []).append(entry)
        self._unwritten += 1
        for follower in self._followers.get(function, ()):
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_DELAY, self.flush)

    def pause_after(self, work: float) -> float:
        """Returns how many seconds to wait before more is read, after reading took ``work`` seconds."""
        pause = self._pace.spend(monotonic(), work)
        return max(pause, FLUSH_DELAY) if self._unwritten > MAX_UNWRITTEN else pause

    async def read(
        self, function: str, tail: int = 100, since: float | None = None, request_id: str | None = None
    ) -> list[LogLine]:
        """Returns the last lines of a function, oldest first.

        Args:
            function: its name.
            tail: how many lines at most.
            since: only lines after this time, in seconds since the epoch.
            request_id: only lines of this invocation.

        Raises:
            FunctionNotFound: no function can have this name.
        """
        self.flush()
        return await self.in_thread(self._read, function, tail, since, request_id)

    async def follow(
        self, function: str, tail: int = 0, since: float | None = None
    ) -> AsyncGenerator[LogLine, None]:
        """Yields the last lines like `read`, then each line as it comes, until the function is forgotten.

        Nothing is missed or told twice in between. One who takes them too slowly misses the oldest.
        """
        queue: asyncio.Queue[Entry | None] = asyncio.Queue(FOLLOW_BACKLOG)
        self._followers.setdefault(function, set()).add(queue)
        try:
            for line in await self.read(function, tail, since):
                yield line
            while (entry := await queue.get()) is not None:
                yield LogLine.model_validate(entry)
        finally:
            followers = self._followers.get(function, set())
            followers.discard(queue)
            if not followers:
                self._followers.pop(function, None)

    async def functions(self) -> list[str]:
        """Returns the functions that this lane has lines of."""
        return await self.in_thread(self.files.functions)

    async def forget(self, function: str) -> None:
        """Deletes what this lane has kept of a function, and ends those who follow it.

        Raises:
            FunctionNotFound: no function can have this name.
        """
        self._unwritten -= len(self._pending.pop(function, ()))
        self._dismiss(self._followers.pop(function, set()))
        await self.in_thread(self.files.delete, function)

    async def in_thread(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Does something with ``files``, after what was done before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    async def close(self) -> None:
        """Writes what is pending, ends those who follow, and the thread."""
        self.flush()
        self._closed = True
        for followers in tuple(self._followers.values()):
            self._dismiss(followers)
        await asyncio.to_thread(self._thread.shutdown)

    def _dismiss(self, followers: set[asyncio.Queue[Entry | None]]) -> None:
        for follower in followers:
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(None)

    def flush(self) -> None:
        """Begins to write what is pending."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            pending, self._pending = self._pending, {}
            self.on_growth(pending)
            count = sum(map(len, pending.values()))
            writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, pending)
            writing.add_done_callback(lambda _: self._written(count))

    def _written(self, count: int) -> None:
        self._unwritten -= count

    # -- in the thread

    def _write(self, pending: dict[str, list[Entry]]) -> None:
        for function, entries in pending.items():
            try:
                self.files.append(function, [orjson.dumps(entry) + b"\n" for entry in entries])
            except OSError as error:
                log.error("log_not_written", function=function, lines=len(entries), error=str(error))

    def _read(self, function: str, tail: int, since: float | None, request_id: str | None) -> list[LogLine]:
        wanted = (
            line
            for line in self.files.newest_first(function)
            if (since is None or line.time > since) and request_id in (None, line.request_id)
        )
        return [*islice(wanted, tail)][::-1]
