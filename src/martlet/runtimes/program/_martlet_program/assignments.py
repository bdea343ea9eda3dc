"""A request as Bash reads it fastest: a script, behind its size, that assigns what is asked for to variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from _martlet_python.http1 import Head  # type: ignore[import-not-found]

from .exchange import FRAMING

_AS_VARIABLE = re.compile(r"[a-z0-9-]+")
_PLAIN = re.compile(rb"[ -~\t\r\n]*")
_NOT_PLAIN = re.compile(rb"[^ -~]|['\\]")


def request(number: int, head: Head, size: int) -> bytes:
    """Returns a request behind ten digits: the bytes of its script, all of which are ASCII.

    The script sets martlet_request to the number, exports METHOD, PATH_INFO (decoded), QUERY_STRING and HEADER_<NAME>,
    and fills the associative arrays HEADERS and QUERY (the first value of each name, decoded). What is NUL when it is
    decoded is left out.

    Args:
        number: how it is called by whom answers it.
        head: what was asked.
        size: bytes of the body.
    """
    path, _, query = head.target.partition("?")
    fields = {name: value for name, value in head.fields.items() if name not in FRAMING}
    fields["content-length"] = str(size)
    exported = {
        "METHOD": head.method.encode(),
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")),
        "QUERY_STRING": query.encode("latin-1"),
    }
    headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in fields.items()}
    for name, value in headers.items():
        if _AS_VARIABLE.fullmatch(name.decode("latin-1")):
            exported["HEADER_" + name.decode().upper().replace("-", "_")] = value
    script = b"martlet_request=%d\nexport%b\nHEADERS=(%b) QUERY=(%b)" % (
        number,
        b"".join(b" %b=%b" % (name.encode(), _quoted(value)) for name, value in exported.items()),
        _members(headers),
        _members(_first_values(query)),
    )
    return b"%010d%b" % (len(script), script)


def _first_values(query: str) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for pair in query.encode("latin-1").replace(b"+", b" ").split(b"&"):
        name, _, value = map(unquote_to_bytes, pair.partition(b"="))
        if name:
            values.setdefault(name, value)
    return values


def _members(values: Mapping[bytes, bytes]) -> bytes:
    return b" ".join(b"[%b]=%b" % (_quoted(name), _quoted(value)) for name, value in values.items())


def _quoted(value: bytes) -> bytes:
    value = value.replace(b"\0", b"")
    if _PLAIN.fullmatch(value):
        return b"'%b'" % value.replace(b"'", b"'\\''")
    return b"$'%b'" % _NOT_PLAIN.sub(lambda found: b"\\x%02x" % found[0][0], value)
