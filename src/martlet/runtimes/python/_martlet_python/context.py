"""The context that functions for Open Runtimes are given: what of it a plain request has not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from .response import encode_json

if TYPE_CHECKING:
    from .request import Headers, Request

HIDDEN = "x-open-runtimes-"
"""What headers begin with that are between the platform and the runtime: no function sees or sends them."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPED_MARKS = re.compile(r"(%(?:26|2[Bb]|3[BDbd]))")
"""`&`, `+`, `;` and `=`, percent-encoded."""


class NothingReturned(Exception):
    """A function that uses its context has returned nothing."""

    def __init__(self) -> None:
        super().__init__("Return statement missing. return context.res.empty() if no response is expected.")


class Incoming:
    """``context.req``.

    Attributes:
        method: `GET`, `POST` …
        scheme: `http` or `https`, as the client used it.
        host: the name the client used, without the port.
        port: the port the client used.
        path: the path below the function's root.
        query: the last value of each parameter; decoded as ``query_string`` is.
        query_string: what follows the question mark, decoded but for `%26`, `%2B`, `%3B` and `%3D`.
        headers: by name, in lower case.
        body_binary: the body, bytes.
    """

    def __init__(self, request: Request) -> None:
        self.method = request.method
        self.path = request.path
        self.query_string = _decoded(request.query_string)
        self.query = _last_values(self.query_string)
        self.headers: Headers = request.headers
        self.body_binary = request.body
        self.scheme: str = self.headers.get("x-forwarded-proto", "http")
        self._default_port = _DEFAULT_PORTS.get(self.scheme, 80)
        self.host, _, port = self.headers.get("host", "").partition(":")
        self.port = int(port) if port.isdecimal() else self._default_port

    @property
    def url(self) -> str:
        """All of the address, as the function knows it."""
        port = "" if self.port == self._default_port else f":{self.port}"
        query = f"?{self.query_string}" if self.query_string else ""
        return f"{self.scheme}://{self.host}{port}{self.path}{query}"

    @property
    def body_text(self) -> str:
        """The body as text. Raises UnicodeDecodeError where it is not UTF-8."""
        return self.body_binary.decode()

    @property
    def body_json(self) -> Any:
        """The body read as JSON. Raises json.JSONDecodeError where it is none."""
        return json.loads(self.body_binary)

    @property
    def body_raw(self) -> str:
        """An older name of `body_text`."""
        return self.body_text

    @property
    def body(self) -> Any:
        """The body read as JSON where content-type says so (empty: ``{}``), else as text."""
        if self.headers.get("content-type", "").lower().startswith("application/json"):
            return self.body_json if self.body_binary else {}
        return self.body_text


def _decoded(query_string: str) -> str:
    """Decodes a query all at once, as aiohttp does, on which Open Runtimes runs functions."""
    pieces = _ESCAPED_MARKS.split(query_string)
    pieces[::2] = map(unquote_plus, pieces[::2])
    pieces[1::2] = map(str.upper, pieces[1::2])
    return "".join(pieces)


def _last_values(query_string: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in query_string.split("&"))
    return {name: value for name, _, value in pairs if name}


class Outgoing:
    """``context.res``: each method makes a response, for the function to return."""

    def text(self, body: str, statusCode: int = 200, headers: Mapping[str, Any] | None = None) -> Any:  # noqa: N803
        """Responds with text."""
        return _response(body.encode(), statusCode, headers, "text/plain")

    def json(self, obj: Any, statusCode: int = 200, headers: Mapping[str, Any] | None = None) -> Any:  # noqa: N803
        """Responds with JSON."""
        return _response(encode_json(obj), statusCode, headers, "application/json")

    def binary(self, bytes: bytes, statusCode: int = 200, headers: Mapping[str, Any] | None = None) -> Any:  # noqa: A002, N803
        """Responds with bytes."""
        return _response(bytes, statusCode, headers, "application/octet-stream")

    def send(
        self,
        body: str | bytes,
        statusCode: int = 200,  # noqa: N803
        headers: Mapping[str, Any] | None = None,
    ) -> Any:
        """Responds with text or bytes; an older name of `text` and `binary`."""
        return (
            self.text(body, statusCode, headers)
            if isinstance(body, str)
            else self.binary(body, statusCode, headers)
        )

    def empty(self) -> Any:
        """Responds with nothing (204)."""
        return None, 204

    def redirect(self, url: str, statusCode: int = 301, headers: Mapping[str, Any] | None = None) -> Any:  # noqa: N803
        """Sends the client elsewhere."""
        return _response(b"", statusCode, {**(headers or {}), "location": url}, "text/plain")


def _response(body: bytes, status: int, headers: Mapping[str, Any] | None, content_type: str) -> Any:
    """Returns what `response.respond` takes."""
    given = {name.lower(): value for name, value in (headers or {}).items()}
    kept = {"content-type": content_type} | {
        name: value for name, value in given.items() if not name.startswith(HIDDEN)
    }
    kept["content-type"] = _with_charset(str(kept["content-type"]))
    return body, status, kept


def _with_charset(content_type: str) -> str:
    is_text = content_type.startswith(("text/", "application/json"))
    return f"{content_type}; charset=utf-8" if is_text and "charset=" not in content_type else content_type


def message(parts: tuple[Any, ...]) -> str:
    """Writes what `context.log` and `context.error` are given as one text."""
    return " ".join(
        encode_json(part).decode() if isinstance(part, dict | list) else str(part) for part in parts
    )
