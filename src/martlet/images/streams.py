"""The bytes of archives and layers: decompressed, checked against their digests, and bounded."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from martlet.images.refusal import too_large, unusable
from martlet.package.staging import CHUNK, Readable

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_ZSTD_MEMORY = "128MB"


def is_digest(text: object) -> bool:
    """Whether a text is a digest as OCI writes them, of a kind that can be checked."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


class Verified:
    """A stream that is read to its end and then compared with a digest.

    Args:
        stream: what to read.
        digest: as OCI writes it.
        what: what people call the stream.
        limit: the most bytes it may have.
    """

    def __init__(self, stream: Readable, digest: str, what: str, limit: int) -> None:
        self._stream = stream
        self._digest = digest
        self._what = what
        self._limit = self._left = limit
        self._hash = hashlib.new(digest.partition(":")[0])

    def read(self, size: int = CHUNK, /) -> bytes:
        """Returns at most ``size`` bytes. Raises `Invalid` past the limit."""
        data = self._stream.read(min(size, CHUNK) if size >= 0 else CHUNK)
        self._left -= len(data)
        if self._left < 0:
            raise too_large(self._limit)
        self._hash.update(data)
        return data

    def finish(self) -> None:
        """Reads what is left and compares. Raises `Invalid` where it is not what the digest says."""
        while self.read():
            pass
        if self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise unusable(f"{self._what} is not what its digest says ({self._digest[:19]}…); get it again")


@contextmanager
def decompressed(stream: Readable) -> Iterator[Readable]:
    """Gives what a stream holds, compressed by gzip, by zstd or not at all; what it begins with says which.

    Raises:
        Invalid: it is damaged, or this machine cannot read it.
    """
    head = stream.read(4)
    while 0 < len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    whole = _Behind(head, stream)
    if head.startswith(_ZSTD):
        with _unzstd(whole) as plain:
            yield plain
    elif head.startswith(_GZIP):
        try:
            with gzip.GzipFile(fileobj=whole) as plain:  # type: ignore[call-overload]
                yield plain
        except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
            raise unusable(f"it is damaged or cut off ({fault})") from None
    else:
        yield whole


class _Behind:
    """A stream whose beginning has been read already."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = CHUNK, /) -> bytes:
        """Returns at most ``size`` bytes."""
        if not self._head:
            return self._stream.read(size)
        data, self._head = self._head[:size], self._head[size:]
        return data


@contextmanager
def _unzstd(stream: Readable) -> Iterator[Readable]:
    program = shutil.which("zstd")
    if program is None:
        raise unusable("it is compressed by zstd, which this machine lacks: apt-get install zstd")
    command = [program, "--decompress", "--stdout", "--quiet", f"--memory={_ZSTD_MEMORY}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = _Feeder(stream, process.stdin)
        feeder.start()
        try:
            yield process.stdout
            if process.stdout.read(1) or process.wait() != 0:
                raise unusable("it is damaged or cut off (zstd says so)")
        finally:
            process.kill()
            feeder.join()
        feeder.check()


class _Feeder(threading.Thread):
    def __init__(self, stream: Readable, target: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._target = target
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            with suppress(BrokenPipeError), self._target:
                while data := self._stream.read(CHUNK):
                    self._target.write(data)
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raises what went wrong in its thread."""
        if self._error is not None:
            raise self._error
