"""What functions print: read from each instance's FIFO, kept in bounded files, followed live.

See "The instance contract" in docs/design.md for the form of the lines. Nothing here trusts a function: lines may be
endless, frames forged, and all of it written at full speed.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from martlet.model import LogLine, Revision

log = structlog.get_logger()

FRAME = b"\x1e"
MAX_LINE = 16 * 1024
READ_SIZE = 64 * 1024
BYTES_PER_WINDOW = 512 * 1024
WINDOW = 0.1
"""An instance that prints more than ``BYTES_PER_WINDOW`` in ``WINDOW`` seconds waits in its own write."""
FLUSH_DELAY = 0.05
COUNTED_INVOCATIONS = 256
FOLLOW_BACKLOG = 2000


class LogReader:
    """Reads what one instance prints, as fast as it may print, and hands it to the store.

    Args:
        path: the instance's FIFO.
        revision: whose instance it is.
        instance: its id.
        store: where lines go.
        request_id: the request that runs now, where it is exactly one; plain lines belong to it.
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
        self._rest = b""
        self._window_ends = 0.0
        self._window_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Takes what is left and lets go of the FIFO."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        if self._resume is not None:
            self._resume.cancel()
        with suppress(BlockingIOError):
            for _ in range(BYTES_PER_WINDOW // READ_SIZE):
                data = os.read(self._descriptor, READ_SIZE)
                if not data:
                    break
                self._feed(data)
        if self._rest:
            self._feed(b"\n")
        os.close(self._descriptor)
        self._descriptor = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._descriptor)
            return
        self._feed(data)
        now = self._loop.time()
        if now > self._window_ends:
            self._window_ends, self._window_bytes = now + WINDOW, 0
        self._window_bytes += len(data)
        if self._window_bytes > BYTES_PER_WINDOW:
            self._loop.remove_reader(self._descriptor)
            self._resume = self._loop.call_later(
                self._window_ends - now, self._loop.add_reader, self._descriptor, self._readable
            )

    def _feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > MAX_LINE:
            line, self._rest = self._rest[:MAX_LINE], self._rest[MAX_LINE:]
            self._line(line)

    def _line(self, line: bytes) -> None:
        text, framed, frame = line.partition(FRAME)
        if text or not framed:
            self._keep(time(), self._request_id(), "stdout", text.decode("utf-8", "replace"))
        if framed:
            try:
                document = orjson.loads(frame)
                request_id = document["id"]
                self._keep(
                    float(document["t"]),
                    str(request_id)[:64] if request_id is not None else None,
                    str(document["s"])[:32],
                    str(document["m"]),
                )
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                self._keep(time(), self._request_id(), "stdout", frame.decode("utf-8", "replace"))

    def _keep(self, at: float, request_id: str | None, stream: str, message: str) -> None:
        self._store.append(
            {
                "time": at,
                "function": self._revision.function,
                "revision": self._revision.number,
                "instance": self._instance,
                "request_id": request_id,
                "stream": stream,
                "message": message[:MAX_LINE],
            }
        )


class LogStore:
    """The log files of one lane: ``<directory>/<function>/<lane>.jsonl`` and one older of the same name with ``.1``.

    Args:
        directory: shared by all lanes.
        lane: name of this lane.
        bytes_per_function: kept of each function by this lane.
        bytes_per_invocation: kept of one invocation; a last line says that it was cut.
    """

    def __init__(
        self, directory: Path, lane: str, bytes_per_function: int, bytes_per_invocation: int
    ) -> None:
        self._directory = directory
        self._lane = lane
        self._bytes_per_file = bytes_per_function // 2
        self._bytes_per_invocation = bytes_per_invocation
        self._pending: dict[str, list[bytes]] = defaultdict(list)
        self._written: OrderedDict[str, int] = OrderedDict()
        self._followers: dict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._timer: asyncio.TimerHandle | None = None

    def append(self, line: dict[str, Any]) -> None:
        """Keeps a line (the members of `LogLine`), within the bounds."""
        if line["request_id"] is not None and not self._within(line):
            return
        document = orjson.dumps(line) + b"\n"
        function = line["function"]
        self._pending[function].append(document)
        for follower in self._followers.get(function, ()):
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(document)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_DELAY, self._flush)

    async def read(
        self, function: str, tail: int = 100, since: float | None = None, request_id: str | None = None
    ) -> list[LogLine]:
        """Returns the last ``tail`` lines, oldest first; only those after ``since`` and of ``request_id`` if given."""
        self._flush()
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._read, function, tail, since, request_id
        )

    async def follow(self, function: str) -> AsyncIterator[LogLine]:
        """Yields lines as they come, for ever; one who reads too slowly misses the oldest."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(FOLLOW_BACKLOG)
        self._followers[function].add(queue)
        try:
            while True:
                yield LogLine.model_validate_json(await queue.get())
        finally:
            self._followers[function].discard(queue)
            if not self._followers[function]:
                del self._followers[function]

    async def forget(self, function: str) -> None:
        """Deletes what this lane has kept of a function."""
        self._pending.pop(function, None)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._delete, function)

    async def close(self) -> None:
        """Writes what is pending and ends the writing thread."""
        self._flush()
        await asyncio.to_thread(self._thread.shutdown)

    def _within(self, line: dict[str, Any]) -> bool:
        request_id = line["request_id"]
        written = self._written.pop(request_id, 0)
        if len(self._written) >= COUNTED_INVOCATIONS:
            self._written.popitem(last=False)
        after = written + len(line["message"]) + 1
        self._written[request_id] = after
        if after <= self._bytes_per_invocation:
            return True
        if written > self._bytes_per_invocation:
            return False
        line["stream"] = "warning"
        line["message"] = f"the log of this invocation is cut at {self._bytes_per_invocation} bytes"
        return True

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            pending, self._pending = self._pending, defaultdict(list)
            self._thread.submit(self._write, pending)

    # -- in the thread

    def _path(self, function: str) -> Path:
        return self._directory / function / f"{self._lane}.jsonl"

    def _write(self, pending: dict[str, list[bytes]]) -> None:
        for function, documents in pending.items():
            path = self._path(function)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(b"".join(documents))
                    size = file.tell()
                if size > self._bytes_per_file:
                    path.replace(path.with_suffix(".jsonl.1"))
            except OSError as error:
                log.error("log_not_written", function=function, error=str(error))

    def _read(self, function: str, tail: int, since: float | None, request_id: str | None) -> list[LogLine]:
        lines: list[LogLine] = []
        path = self._path(function)
        for part in (path, path.with_suffix(".jsonl.1")):
            with suppress(FileNotFoundError):
                for document in reversed(part.read_bytes().splitlines()):
                    if len(lines) >= tail:
                        break
                    with suppress(ValidationError):  # the last line of a killed lane may be cut
                        line = LogLine.model_validate_json(document)
                        if (since is None or line.time > since) and request_id in (None, line.request_id):
                            lines.append(line)
        return lines[::-1]

    def _delete(self, function: str) -> None:
        path = self._path(function)
        for part in (path, path.with_suffix(".jsonl.1")):
            part.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()
