"""What machines have put aside of logs and histories, so that it outlives them: objects in a bucket.

Every lane has folders of its own, so that nobody writes what another does: an object is called
``<function>/<when it was made>/<node>/<lane>/<number>``. The number is that of a piece of the log, or 0 for the latest
invocations. A function that was deleted and made anew is another one, by the time at which it was made (ms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore, ObjectStore

from martlet.bucket import Bucket
from martlet.model import Function
from martlet.storage.objects import s3_objects, sentence

REQUEST_SECONDS = 5.0
"""How long one request may take; nothing is begun anew: who ships tries again anyway, and who reads waits no longer."""
THREADS = 4
INVOCATIONS = 0
"""The number of the object with the latest invocations; pieces of logs have larger ones."""

P = ParamSpec("P")
Result = TypeVar("Result")


class ShelfError(Exception):
    """The shelf is out of reach."""


class Shelved(NamedTuple):
    """An object: whose it is, its number, and its size in bytes. ``written`` is in seconds since the epoch."""

    function: str
    made: int
    node: str
    lane: str
    number: int
    size: int = 0
    written: float = 0.0

    @property
    def path(self) -> str:
        """Its name in the bucket."""
        return f"{self.function}/{self.made}/{self.node}/{self.lane}/{self.number:010d}"


def made_at(function: Function) -> int:
    """Returns what tells a function from others that had its name before."""
    return int(function.created * 1000)


class LogShelf:
    """See the module. Every method raises `ShelfError` when it is out of reach."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="shelf")

    @classmethod
    def of(cls, bucket: Bucket, *, request_seconds: float = REQUEST_SECONDS) -> LogShelf:
        """Returns the shelf in a bucket; the service is not asked yet.

        Raises:
            Invalid: the file with the keys cannot be read.
        """
        return cls(s3_objects(bucket, request_seconds, 0.0))

    @classmethod
    def memory(cls) -> LogShelf:
        """Returns a shelf that is lost with this object."""
        return cls(MemoryStore())

    async def put(self, shelved: Shelved, data: bytes) -> None:
        """Writes an object; it replaces the one of that name as a whole."""
        await self._in_thread(obstore.put, self._objects, shelved.path, data)

    async def get(self, shelved: Shelved) -> bytes:
        """Returns the bytes of an object; none where it has gone meanwhile."""
        return await self._in_thread(self._get, shelved.path)

    async def delete(self, shelved: Sequence[Shelved]) -> None:
        """Removes objects; harmless where there are none."""
        for each in shelved:
            await self._in_thread(self._delete, each.path)

    async def list(self, *path: str | int) -> Sequence[Shelved]:
        """Returns the objects below a function, a time, a node, a lane; all where nothing is said. In their order."""
        return await self._in_thread(self._list, "/".join(map(str, path)))

    async def _in_thread(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        with _errors():
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(work, *args, **kwargs)
            )

    def _get(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._objects, path).bytes())
        except FileNotFoundError:
            return b""

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            obstore.delete(self._objects, path)

    def _list(self, prefix: str) -> Sequence[Shelved]:
        found = obstore.list(self._objects, prefix or None).collect()
        return sorted(
            shelved
            for each in found
            if (shelved := _shelved(each["path"], each["size"], each["last_modified"].timestamp()))
        )


def _shelved(path: str, size: int, written: float) -> Shelved | None:
    """Reads the name of an object; None where it is not one of ours."""
    match path.split("/"):
        case [function, made, node, lane, number] if made.isdecimal() and number.isdecimal():
            return Shelved(function, int(made), node, lane, int(number), size, written)
    return None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise ShelfError(sentence(error)) from error
