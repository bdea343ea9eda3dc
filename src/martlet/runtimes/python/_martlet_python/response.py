"""What a handler may return, and what becomes of it on the wire."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from json import JSONEncoder, encoder
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from .http1 import Framing, Head, header_block, status_line, whole

_JSON = b"content-type: application/json\r\n"
_TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_BYTES = b"content-type: application/octet-stream\r\n"

_JSON_TYPES = (dict, list)
_BYTES_TYPES = (bytes, bytearray, memoryview)


class Response(NamedTuple):
    """Status, header lines, and a body that is whole or comes in pieces of str or bytes.

    ``content_type`` is a header line of its own; None lets the first piece of a stream decide.
    """

    status: int
    content_type: bytes | None
    fields: bytes
    body: bytes | Iterator[Any] | AsyncIterator[Any]

    def framing(self, head: Head, first: Any) -> Framing:
        """Returns the framing of a streamed response whose first piece is known."""
        content_type = self.content_type
        if content_type is None:
            content_type = _TEXT if isinstance(first, str) else _BYTES
        framing = Framing(head)
        framing.start(self.status, content_type + self.fields)
        return framing

    def whole(self, head: Head, body: bytes) -> bytes:
        """Returns all of a response that is not streamed, and whose body therefore is bytes."""
        fields = self.fields if self.content_type is None else self.content_type + self.fields
        return whole(head, self.status, fields, body)


def respond(result: Any) -> Response:
    """Turns what a handler returned into a response.

    It is ``body``, ``(body, status)`` or ``(body, status, headers)``, where headers is a dict or a list of pairs, and
    body is a str (text), bytes, None (204; empty where a status is given), an iterator or async iterator of str and
    bytes (streamed), or anything else (JSON).

    Raises:
        TypeError: the value cannot be sent.
        ValueError: the status or a header cannot be sent, or a number is not finite and so has no JSON.
    """
    if not isinstance(result, tuple):
        return _body(result, 204 if result is None else 200)
    if not 2 <= len(result) <= 3:
        raise TypeError(f"a tuple is (body, status) or (body, status, headers), not {len(result)} values")
    status = result[1]
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"{status!r} is not an HTTP status (200 to 599)")
    response = _body(result[0], int(status))
    return response if len(result) == 2 else _with_headers(response, result[2])


def at_once(head: Head, result: Any) -> bytes | None:
    """Returns the whole response to a result that is a str, dict or list, as most are.

    It is what `respond` and `Response.whole` make of it in more steps. None: it takes those.

    Raises:
        TypeError, ValueError: it has no JSON.
    """
    known = _AT_ONCE.get(type(result))
    if known is None or head.method == "HEAD" or not head.keep_alive:
        return None
    start, encode = known
    body = encode(result)
    return start % (len(body), body)


def encode_piece(piece: Any) -> bytes:
    """Returns one piece of a streamed body as bytes.

    Raises:
        TypeError: it is neither str nor bytes.
    """
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, _BYTES_TYPES):
        return bytes(piece)
    raise TypeError(f"a stream is made of str and bytes, and this piece is of type {type(piece).__name__}")


def encode_json(value: Any) -> bytes:
    """Returns a value as JSON. Raises TypeError or ValueError where it has none."""
    text = "".join(_chunks(value, 0)) if _chunks else _encoder.encode(value)
    return text.encode()


def _body(value: Any, status: int) -> Response:
    if isinstance(value, _JSON_TYPES):
        return Response(status, _JSON, b"", encode_json(value))
    if isinstance(value, str):
        return Response(status, _TEXT, b"", value.encode())
    if isinstance(value, _BYTES_TYPES):
        return Response(status, _BYTES, b"", bytes(value))
    if value is None:
        return Response(status, b"", b"", b"")
    if hasattr(value, "__next__") or hasattr(value, "__anext__"):
        return Response(status, None, b"", value)
    if hasattr(value, "__await__"):
        raise TypeError("the handler returned something to await: declare it with `async def`")
    return Response(status, _JSON, b"", encode_json(value))


def _with_headers(response: Response, headers: Any) -> Response:
    given = headers.items() if isinstance(headers, Mapping) else headers
    pairs = [(str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in given]
    block, _ = header_block(pairs)
    if any(name.lower() == b"content-type" for name, _ in pairs):
        response = response._replace(content_type=b"")
    return response._replace(fields=block)


def _plain(value: Any) -> Any:
    """What JSON has no word for, as something it has.

    UUID, Decimal and paths become text; dates and times ISO 8601; bytes base64; sets lists; dataclasses, mappings and
    pydantic models objects; numpy's arrays and numbers lists and numbers.
    """
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    for method in ("model_dump", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent as JSON")


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((UUID, Decimal, PurePath), str),
    ((date, time), lambda value: value.isoformat()),
    (_BYTES_TYPES, lambda value: base64.b64encode(value).decode()),
    ((set, frozenset), list),
    (Enum, lambda value: value.value),
    (Mapping, dict),
)
_encoder = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
# `JSONEncoder.encode` makes this anew for every value, which costs more than encoding a small one. Without its record
# of what it is inside of, a value that contains itself ends in a RecursionError.
_make_chunks = getattr(encoder, "c_make_encoder", None)
_chunks = _make_chunks and _make_chunks(
    None, _plain, encoder.encode_basestring, None, ":", ",", False, False, False
)
_AT_ONCE: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    kind: (b"%b%bcontent-length: %%d\r\n\r\n%%b" % (status_line(200), content_type), encode)
    for kind, content_type, encode in (
        (str, _TEXT, str.encode),
        (dict, _JSON, encode_json),
        (list, _JSON, encode_json),
    )
}
