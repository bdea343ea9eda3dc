"""One small request over a unix socket: health probes, and what lanes tell each other."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, BinaryIO

import httptools
import orjson

from martlet.http.unix import connected

MAX_ANSWER = 64 * 1024 * 1024
MAX_ANSWER_OF_INSTANCE = 1024 * 1024
"""An instance may answer anything, and parsing it takes the lane's time."""
_CHUNK = 256 * 1024


class FetchError(Exception):
    """There was no answer."""


async def fetch(
    socket: str | Path,
    method: str,
    target: str,
    document: Any = None,
    *,
    timeout: float,
    at_most: int = MAX_ANSWER,
    upload: BinaryIO | None = None,
) -> tuple[int, bytes]:
    """Sends a request with an optional JSON body on a connection of its own.

    Args:
        socket: path of a unix stream socket.
        method: of the request.
        target: path and query.
        document: the body, as JSON; None: there is none.
        timeout: seconds until the whole answer must be there.
        at_most: bytes of the answer, its head included.
        upload: a tar file on disk whose rest is the body, in place of a document.

    Returns:
        Status and body of the answer.

    Raises:
        FetchError: no answer, or one that is not HTTP or too long, or none in time.
    """
    body = b"" if document is None else orjson.dumps(document)
    length = len(body) if upload is None else os.fstat(upload.fileno()).st_size - upload.tell()
    head = head_of(method, target, length, "application/json" if upload is None else "application/x-tar")
    answer = Answer()
    try:
        async with asyncio.timeout(timeout):
            # A stream, or a protocol, would cost a cold start more than the conversation itself.
            loop = asyncio.get_running_loop()
            with await connected(socket) as connection:
                await loop.sock_sendall(connection, head + b"connection: close\r\n\r\n" + body)
                while upload is not None and (chunk := upload.read(_CHUNK)):
                    await loop.sock_sendall(connection, chunk)
                while not answer.complete:
                    data = await loop.sock_recv(connection, 65536)
                    if not data:
                        break
                    answer.feed(data)
                    if answer.received > at_most:
                        raise FetchError(f"{method} {target}: the answer is over {at_most} bytes")
    except (OSError, TimeoutError, httptools.HttpParserError) as error:
        raise FetchError(f"{method} {target}: {error or type(error).__name__}") from error
    if not answer.complete:
        raise FetchError(f"{method} {target}: the connection was closed before the answer was complete")
    return answer.status, bytes(answer.body)


def head_of(method: str, target: str, length: int, kind: str) -> bytes:
    """Returns the head of a request, without its end, whose body has ``length`` bytes of the media type ``kind``."""
    head = f"{method} {target} HTTP/1.1\r\nhost: martlet\r\ncontent-length: {length}\r\n"
    return (f"{head}content-type: {kind}\r\n" if length else head).encode()


class Answer:
    """What has come of a response.

    Attributes:
        status: of it, once the head is there.
        body: as far as it has come.
        received: bytes that were fed, head included.
        complete: whether all of it is there.
        keeps_alive: whether the connection may then be used again.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.received = 0
        self.complete = False
        self.keeps_alive = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Adds bytes that were received. Raises `httptools.HttpParserError` where they are no HTTP."""
        self.received += len(data)
        self._parser.feed_data(data)

    # -- the parser's side

    def on_message_begin(self) -> None:
        """A response begins; a second one to one request is a fault."""
        if self.complete:
            raise ValueError("more than one response to a request")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """All is there."""
        self.complete = True
        self.keeps_alive = self._parser.should_keep_alive()
