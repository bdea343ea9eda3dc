"""A request as Bash reads it fastest: a script, behind its size, that assigns what is asked for to variables."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from _martlet_python.http1 import Head  # type: ignore[import-not-found]

from .exchange import FRAMING

_AS_VARIABLE = re.compile(r"[a-z0-9-]+")
_NOT_PLAIN = re.compile(r"[^ -~]|['\\]")


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
    exported = [
        f"METHOD={_quoted(head.method)}",
        f"PATH_INFO={_quoted(_decoded(path))}",
        f"QUERY_STRING={_quoted(query)}",
    ]
    members = []
    fields = {name: value for name, value in head.fields.items() if name not in FRAMING}
    fields["content-length"] = str(size)
    for name, value in fields.items():
        variable, member = _names(name)
        value = _quoted(value)
        if variable:
            exported.append(variable + value)
        members.append(member + value)
    script = (
        f"martlet_request={number}\nexport {' '.join(exported)}\n"
        f"HEADERS=({' '.join(members)}) QUERY=({' '.join(_of_query(query))})"
    )
    return f"{len(script):010d}{script}".encode("ascii")


@lru_cache(maxsize=256)
def _names(header: str) -> tuple[str, str]:
    """Returns what its value follows in the script: as a variable (or nothing, where none can have such a name), and in
    HEADERS."""
    variable = f"HEADER_{header.upper().replace('-', '_')}=" if _AS_VARIABLE.fullmatch(header) else ""
    return variable, f"[{_quoted(header)}]="


def _of_query(query: str) -> list[str]:
    values: dict[str, str] = {}
    for pair in query.replace("+", " ").split("&"):
        name, _, value = pair.partition("=")
        if name := _decoded(name):
            values.setdefault(name, _decoded(value))
    return [f"[{_quoted(name)}]={_quoted(value)}" for name, value in values.items()]


def _decoded(text: str) -> str:
    """Returns a text without percent-encoding; here as there each character is a byte."""
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1") if "%" in text else text


def _quoted(text: str) -> str:
    if text.isascii() and text.isprintable() and "'" not in text:
        return f"'{text}'"
    return f"$'{_NOT_PLAIN.sub(_escaped, text)}'"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code else ""
