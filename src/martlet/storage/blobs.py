"""Blobs: packages and other large things that never change, each named by a digest that its owner defines.

A blob is one object, ``<prefix>/<digest>/<sha256 of its bytes>``. So in a local folder it is a plain file,
and damage shows without a second object that might be missing.

Only the blocking calls of obstore are used: a process that ends soon after it awaited one of the coroutines is
sometimes aborted by the library. They run in threads of their own, so that a service that has fallen silent keeps
nobody else waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore

from martlet.bucket import Bucket
from martlet.storage.objects import s3_objects, sentence, was_unsent

if TYPE_CHECKING:
    from obstore import ObjectMeta

PART = 8 * 1024 * 1024
"""Bytes that one request carries; a larger blob is sent and fetched in parts, and only what was cut off is repeated."""
PARTS_AT_ONCE = 2
THREADS = 8
KEPT_CONNECTIONS = 2 * THREADS
"""Connections that may be kept to a service, and each be found closed."""
REQUEST_SECONDS = 30.0
"""How long one request to a service may take, with the part that it carries."""
RETRY_SECONDS = 10.0
"""For how long a request is begun anew that was refused or cut off, or met a fault of the service."""

_PREFIX = re.compile(r"[a-z][a-z0-9-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")

P = ParamSpec("P")
Result = TypeVar("Result")


class BlobError(Exception):
    """The blobs are out of reach (no permission, no space, no network)."""


class BlobNotFound(BlobError):
    """There is no such blob."""


class BlobCorrupt(BlobError):
    """The bytes of the blob are not those that were put: delete it and put it again."""


class Blobs:
    """A place for blobs. Make one with `local`, `s3` or `memory`.

    A prefix is a lower-case word, a digest 64 hexadecimal digits; anything else is a ValueError. Every method
    raises `BlobError` when the place is out of reach.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")

    @classmethod
    def of(cls, bucket: Bucket | None, folder: Path) -> Blobs:
        """Returns the blobs of a bucket, or of a local folder where there is none. Raises `Invalid` as `s3` does."""
        return cls.local(folder) if bucket is None else cls.s3(bucket)

    @classmethod
    def local(cls, path: Path) -> Blobs:
        """Returns the blobs of a folder, which is made where there is none."""
        with _errors():
            return cls(LocalStore(path, mkdir=True, automatic_cleanup=True))

    @classmethod
    def s3(
        cls, bucket: Bucket, *, request_seconds: float = REQUEST_SECONDS, retry_seconds: float = RETRY_SECONDS
    ) -> Blobs:
        """Returns the blobs of a bucket; the service is not asked yet.

        Each request fails after ``request_seconds`` and, where it may help, is begun anew for ``retry_seconds``.

        Raises:
            Invalid: the file with the keys cannot be read.
        """
        return cls(s3_objects(bucket, request_seconds, retry_seconds))

    @classmethod
    def memory(cls) -> Blobs:
        """Returns blobs that are lost with this object."""
        return cls(MemoryStore())

    async def put(self, prefix: str, digest: str, data: bytes | Path) -> None:
        """Stores the bytes, or the file, under its digest; it is there as a whole or not at all."""
        await self._in_thread(self._put, prefix, digest, data)

    async def get(self, prefix: str, digest: str) -> bytes:
        """Returns the bytes.

        Raises:
            BlobNotFound: there is no such blob.
            BlobCorrupt: its bytes are not those that were put.
        """
        return await self._in_thread(self._get, prefix, digest)

    async def fetch(self, prefix: str, digest: str, target: Path) -> None:
        """Writes the bytes to the file ``target``, which appears only when it is whole.

        Raises:
            BlobNotFound: there is no such blob.
            BlobCorrupt: its bytes are not those that were put.
        """
        await self._in_thread(self._fetch, prefix, digest, target)

    async def exists(self, prefix: str, digest: str) -> bool:
        """Whether there is such a blob; its bytes are not looked at."""
        return bool(await self._in_thread(self._find, prefix, digest))

    async def delete(self, prefix: str, digest: str) -> None:
        """Removes the blob; harmless when there is none."""
        await self._in_thread(self._delete, prefix, digest)

    async def list(self, prefix: str) -> Sequence[str]:
        """Returns the digests of the blobs under the prefix, in order."""
        return await self._in_thread(self._list, prefix)

    async def _in_thread(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        wanted = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _until_sent, wanted)

    def _put(self, prefix: str, digest: str, data: bytes | Path) -> None:
        folder = _folder(prefix, digest)
        with _errors():
            if isinstance(data, Path):
                with data.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                checksum = hashlib.sha256(data).hexdigest()
            path = f"{folder}/{checksum}"
            obstore.put(self._objects, path, data, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def _get(self, prefix: str, digest: str) -> bytes:
        return b"".join(self._parts(prefix, digest))

    def _fetch(self, prefix: str, digest: str, target: Path) -> None:
        part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        with _errors():
            try:
                with part.open("xb") as file:
                    file.writelines(self._parts(prefix, digest))
                part.rename(target)
            finally:
                part.unlink(missing_ok=True)

    def _parts(self, prefix: str, digest: str) -> Iterator[bytes]:
        """Yields the bytes of the blob, and raises at the end if they are not those that were put."""
        objects = self._find(prefix, digest)
        if not objects:
            raise BlobNotFound(f"there is no blob {prefix}/{digest}")
        # A digest may have been put again with other bytes (another compression, say): the newest is as good.
        newest = max(objects, key=lambda found: found["last_modified"])
        path, size = newest["path"], newest["size"]
        checksum = hashlib.sha256()
        for start in range(0, size, PART):
            with _errors():
                try:
                    part = obstore.get_range(self._objects, path, start=start, end=min(start + PART, size))
                except FileNotFoundError:
                    raise BlobNotFound(f"the blob {prefix}/{digest} was deleted meanwhile") from None
            checksum.update(part)
            yield bytes(part)
        if not path.endswith(f"/{checksum.hexdigest()}"):
            raise BlobCorrupt(f"the blob {prefix}/{digest} is damaged: delete it and put it again")

    def _delete(self, prefix: str, digest: str) -> None:
        with _errors():
            for found in self._find(prefix, digest):
                with suppress(FileNotFoundError):  # another has deleted it meanwhile
                    obstore.delete(self._objects, found["path"])

    def _find(self, prefix: str, digest: str) -> Sequence[ObjectMeta]:
        with _errors():
            return obstore.list(self._objects, _folder(prefix, digest)).collect()

    def _list(self, prefix: str) -> Sequence[str]:
        # Not by folders: services that keep some show those, too, that are empty by now.
        with _errors():
            found = obstore.list(self._objects, _checked(_PREFIX, prefix)).collect()
        return sorted({each["path"].split("/")[1] for each in found})


def _folder(prefix: str, digest: str) -> str:
    return f"{_checked(_PREFIX, prefix)}/{_checked(_DIGEST, digest)}"


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot name a blob: it does not match {pattern.pattern}")
    return text


def _until_sent(work: Callable[[], Result]) -> Result:
    """Does it again where a request of it was not even sent. Whatever is done with blobs may be done twice."""
    for _ in range(KEPT_CONNECTIONS):
        try:
            return work()
        except BlobError as error:
            if not was_unsent(error.__cause__):
                raise
    return work()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise BlobError(sentence(error)) from error
