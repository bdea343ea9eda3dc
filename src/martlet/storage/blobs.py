"""Blobs: packages and other large things that never change, each named by a digest that its owner defines.

A blob is one object, ``<prefix>/<digest>/<sha256 of its bytes>``. So in a local folder it is a plain file,
and damage shows without a second object that might be missing.

Only the blocking calls of obstore are used, in threads: a process that ends soon after it awaited one of the
coroutines is sometimes aborted by the library.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore

if TYPE_CHECKING:
    from obstore import ObjectMeta

CHUNK = 1024 * 1024
"""Bytes that are in memory at once while a blob is fetched into a file."""

_PREFIX = re.compile(r"[a-z][a-z0-9-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobError(Exception):
    """The blobs are out of reach (no permission, no space, no network)."""


class BlobNotFound(BlobError):
    """There is no such blob."""


class BlobCorrupt(BlobError):
    """The bytes of the blob are not those that were put: delete it and put it again."""


class Blobs:
    """A place for blobs. Make one with `local` or `memory`.

    A prefix is a lower-case word, a digest 64 hexadecimal digits; anything else is a ValueError. Every method
    raises `BlobError` when the place is out of reach.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    @classmethod
    def local(cls, path: Path) -> Blobs:
        """Returns the blobs of a folder, which is made where there is none."""
        with _errors():
            return cls(LocalStore(path, mkdir=True, automatic_cleanup=True))

    @classmethod
    def memory(cls) -> Blobs:
        """Returns blobs that are lost with this object."""
        return cls(MemoryStore())

    async def put(self, prefix: str, digest: str, data: bytes | Path) -> None:
        """Stores the bytes, or the file, under its digest; it is there as a whole or not at all."""
        await asyncio.to_thread(self._put, prefix, digest, data)

    async def get(self, prefix: str, digest: str) -> bytes:
        """Returns the bytes.

        Raises:
            BlobNotFound: there is no such blob.
            BlobCorrupt: its bytes are not those that were put.
        """
        return await asyncio.to_thread(self._get, prefix, digest)

    async def fetch(self, prefix: str, digest: str, target: Path) -> None:
        """Writes the bytes to the file ``target``, which appears only when it is whole.

        Raises:
            BlobNotFound: there is no such blob.
            BlobCorrupt: its bytes are not those that were put.
        """
        await asyncio.to_thread(self._fetch, prefix, digest, target)

    async def exists(self, prefix: str, digest: str) -> bool:
        """Whether there is such a blob; its bytes are not looked at."""
        return bool(await asyncio.to_thread(self._find, prefix, digest))

    async def delete(self, prefix: str, digest: str) -> None:
        """Removes the blob; harmless when there is none."""
        await asyncio.to_thread(self._delete, prefix, digest)

    async def list(self, prefix: str) -> Sequence[str]:
        """Returns the digests of the blobs under the prefix, in order."""
        return await asyncio.to_thread(self._list, prefix)

    def _put(self, prefix: str, digest: str, data: bytes | Path) -> None:
        folder = _folder(prefix, digest)
        with _errors():
            if isinstance(data, Path):
                with data.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                checksum = hashlib.sha256(data).hexdigest()
            obstore.put(self._objects, f"{folder}/{checksum}", data)

    def _get(self, prefix: str, digest: str) -> bytes:
        return b"".join(self._chunks(prefix, digest))

    def _fetch(self, prefix: str, digest: str, target: Path) -> None:
        part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        with _errors():
            try:
                with part.open("xb") as file:
                    file.writelines(self._chunks(prefix, digest))
                part.rename(target)
            finally:
                part.unlink(missing_ok=True)

    def _chunks(self, prefix: str, digest: str) -> Iterator[bytes]:
        """Yields the bytes of the blob, and raises at the end if they are not those that were put."""
        objects = self._find(prefix, digest)
        if not objects:
            raise BlobNotFound(f"there is no blob {prefix}/{digest}")
        # A digest may have been put again with other bytes (another compression, say): the newest is as good.
        path = max(objects, key=lambda found: found["last_modified"])["path"]
        checksum = hashlib.sha256()
        with _errors():
            try:
                content = obstore.get(self._objects, path)
            except FileNotFoundError:
                raise BlobNotFound(f"the blob {prefix}/{digest} was deleted meanwhile") from None
            for chunk in content.stream(min_chunk_size=CHUNK):
                checksum.update(chunk)
                yield bytes(chunk)
        if not path.endswith(f"/{checksum.hexdigest()}"):
            raise BlobCorrupt(f"the blob {prefix}/{digest} is damaged: delete it and put it again")

    def _delete(self, prefix: str, digest: str) -> None:
        with _errors():
            for found in self._find(prefix, digest):
                obstore.delete(self._objects, found["path"])

    def _find(self, prefix: str, digest: str) -> Sequence[ObjectMeta]:
        with _errors():
            return obstore.list(self._objects, _folder(prefix, digest)).collect()

    def _list(self, prefix: str) -> Sequence[str]:
        with _errors():
            folders = obstore.list_with_delimiter(self._objects, _checked(_PREFIX, prefix))["common_prefixes"]
        return sorted(folder.rpartition("/")[2] for folder in folders)


def _folder(prefix: str, digest: str) -> str:
    return f"{_checked(_PREFIX, prefix)}/{_checked(_DIGEST, digest)}"


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot name a blob: it does not match {pattern.pattern}")
    return text


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise BlobError(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    """Returns what the library says without the dump of its inner state that follows."""
    return str(error).partition("\n")[0]
