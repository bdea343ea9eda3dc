"""What a Lambda function answers, as an HTTP response.

A JSON object with ``statusCode`` says all of it (``headers``, ``multiValueHeaders``, ``cookies``, ``body``,
``isBase64Encoded``); other JSON is a body itself. A stream may begin with such an object and eight NUL bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from _martlet_python.http1 import Disconnected, Framing, Head, header_block, whole

from .invocation import Raised, Streamed
from .runtime_api import WITH_PRELUDE, error_of

_END_OF_PRELUDE = b"\0" * 8
_FAILED = b"lambda-runtime-function-error-type:"
_MAX_PRELUDE = 1024 * 1024
_JSON = "application/json"


class BadReply(Exception):
    """The function's answer cannot be made a response."""


class Reply(NamedTuple):
    """A response: its status, header lines and body."""

    status: int
    fields: bytes
    body: bytes


def reply_of(answer: bytes) -> Reply:
    """Reads a whole answer. Raises `BadReply`."""
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return Reply(200, _lines([("content-type", "text/plain; charset=utf-8")]), answer)
    if not (isinstance(said, dict) and "statusCode" in said):
        return Reply(200, _lines([("content-type", _JSON)]), answer)
    return _described(said)


def _described(said: Mapping[str, Any]) -> Reply:
    status = said["statusCode"]
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise BadReply(f"statusCode is {status!r}, and must be a number from 200 to 599")
    return Reply(status, _lines([*_headers(said)]), _body(said))


def _headers(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    single, multiple, cookies = (said.get(name) or {} for name in ("headers", "multiValueHeaders", "cookies"))
    if not (isinstance(single, dict) and isinstance(multiple, dict) and isinstance(cookies, list | dict)):
        raise BadReply("headers and multiValueHeaders must be objects, and cookies a list")
    names = {name.lower() for name in (*single, *multiple)}
    if "content-type" not in names:
        yield "content-type", _JSON
    several = {name.lower() for name in multiple}
    for name, value in single.items():
        if name.lower() not in several:
            yield name, _as_text(value)
    for name, values in multiple.items():
        for value in values if isinstance(values, list) else [values]:
            yield name, _as_text(value)
    for cookie in cookies:
        yield "set-cookie", _as_text(cookie)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _body(said: Mapping[str, Any]) -> bytes:
    body = said.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return json.dumps(body).encode()
    if not said.get("isBase64Encoded"):
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise BadReply("isBase64Encoded is true, and body is not base64") from None


def _lines(pairs: list[tuple[str, str]]) -> bytes:
    try:
        lines, _ = header_block((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)
    except ValueError as error:
        raise BadReply(f"a header cannot be sent: {error}") from None
    return lines


def failure(head: Head, kind: str, message: str) -> bytes:
    """Returns the whole response to a request whose handler failed, as the platform knows it."""
    fields = b"content-type: application/json\r\nx-martlet-error: %b\r\n" % _token(kind)
    return whole(head, 500, fields, json.dumps({"type": kind, "message": message}).encode())


def raised(head: Head, outcome: Raised) -> bytes:
    """Returns the whole response to a request whose handler raised."""
    error = error_of(outcome.document, outcome.kind)
    return failure(head, error["type"], error["message"])


def _token(kind: str) -> bytes:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in kind).encode()


async def stream(head: Head, outcome: Streamed, client: Any, *, plain: bool = False) -> bool:
    """Sends a streamed answer on as it comes. Whether the connection may go on.

    Args:
        head: of the request.
        outcome: where the pieces come from.
        client: the channel that they go to.
        plain: pass everything on as the body.

    Raises:
        BadReply: its prelude cannot be made a response.
        Disconnected: the client is gone, or the program is; or it says in the end that it has failed.
    """
    pieces = outcome.channel
    content_type = outcome.fields.get("content-type", "application/octet-stream")
    framing, first = Framing(head), b""
    if content_type == WITH_PRELUDE and not plain:
        prelude, first = await _prelude(pieces)
        framing.start(prelude.status, prelude.fields)
    else:
        framing.start(200, _lines([("content-type", content_type)]))
    if first:
        await client.send(framing.send(first, more=True))
    while piece := await _piece(pieces):
        await client.send(framing.send(piece, more=True))
    if any(line.lower().startswith(_FAILED) for line in pieces.trailers):
        raise Disconnected  # a response that is cut short is known to be none
    outcome.before_end()
    await client.send(framing.send(b"", more=False))
    return framing.keep_alive


async def _prelude(pieces: Any) -> tuple[Reply, bytes]:
    read = b""
    while _END_OF_PRELUDE not in read:
        piece = await _piece(pieces)
        if not piece or len(read) > _MAX_PRELUDE:
            raise BadReply(f"a stream of type {WITH_PRELUDE} begins with a JSON object and 8 NUL bytes")
        read += piece
    said, _, rest = read.partition(_END_OF_PRELUDE)
    try:
        document = json.loads(said)
    except ValueError as error:
        raise BadReply(f"the stream does not begin with JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadReply("the stream begins with JSON that is no object")
    return _described({"statusCode": 200, **document}), rest


async def _piece(pieces: Any) -> bytes:
    piece: bytes = await pieces.piece()
    return piece
