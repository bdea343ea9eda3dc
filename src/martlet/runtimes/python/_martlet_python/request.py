"""The request as a handler sees it."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qsl

from . import logs
from .context import Incoming, NothingReturned, Outgoing, message
from .http1 import Head, decode_path


class BadJson(ValueError):
    """The request body is not JSON. A handler that lets it pass answers 400."""


class Headers(dict[str, str]):
    """A dict of headers: names in lower case, looked up in any case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the header's value, or ``default``."""
        return super().get(name.lower(), default)


class Query(dict[str, str]):
    """A dict of query parameters; the last value of a name wins."""

    def __init__(self, query_string: str) -> None:
        self._pairs = parse_qsl(query_string, keep_blank_values=True)
        super().__init__(self._pairs)

    def get_all(self, name: str) -> list[str]:
        """Returns every value of the name, in the order sent; empty when there is none."""
        return [value for key, value in self._pairs if key == name]


class Request:
    """One request. For a function written for Open Runtimes it is the context as well.

    Attributes:
        method: `GET`, `POST` …
        path: the path below the function's root, decoded; begins with a slash.
        query_string: what follows the question mark, as sent.
        body: the whole body, bytes.
        silent: whether `log` and `error` write nothing.
    """

    __slots__ = (
        "_arrived",
        "_head",
        "_headers",
        "_incoming",
        "_outgoing",
        "_query",
        "body",
        "method",
        "path",
        "query_string",
        "silent",
    )

    def __init__(self, head: Head, body: bytes) -> None:
        self.path: str
        self.query_string: str
        self._arrived = time.monotonic()
        self._head = head
        self._headers: Headers | None = None
        self._query: Query | None = None
        self._incoming: Incoming | None = None
        self._outgoing: Outgoing | None = None
        self.silent = False
        self.method = head.method
        self.path, _, self.query_string = head.target.partition("?")
        if "%" in self.path or not self.path.isascii():
            self.path = decode_path(self.path)
        self.body = body

    @property
    def headers(self) -> Headers:
        """The headers as a dict that is looked up in any case; one that came twice has both values, with a comma."""
        if self._headers is None:
            self._headers = Headers(self._head.fields)
        return self._headers

    @property
    def query_params(self) -> Query:
        """The query as a dict; `query_params.get_all(name)` has every value of a name."""
        if self._query is None:
            self._query = Query(self.query_string)
        return self._query

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """Returns a header's value, or ``default`` where it was not sent."""
        value: str | None = self.headers.get(name, default)
        return value

    def get_text(self) -> str:
        """Returns the body as text, in the charset that content-type names (UTF-8 by default).

        Bytes that are no text in it become U+FFFD.
        """
        _, _, charset = self.headers.get("content-type", "").lower().partition("charset=")
        try:
            return self.body.decode(charset.partition(";")[0].strip(" \"'") or "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def get_json(self) -> Any:
        """Returns the body read as JSON, whatever content-type says.

        An empty body is read as ``{}``, so that `request.get_json().get("name", "World")` works without one.

        Raises:
            BadJson: it is not JSON.
        """
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadJson(f"the request body is not JSON: {error}") from None

    @property
    def request_id(self) -> str | None:
        """The id of this request, as the response, the log and the platform's records have it."""
        return self.get_header("x-request-id")

    @property
    def function(self) -> str | None:
        """The name of the function."""
        return self.get_header("x-faas-function")

    @property
    def revision(self) -> str | None:
        """The revision that runs."""
        return self.get_header("x-faas-revision")

    @property
    def deadline_ms(self) -> int | None:
        """Milliseconds the request had when it arrived; the instance is ended when they are over."""
        value = self.headers.get("x-faas-deadline", "")
        return int(value) if value.isdecimal() else None

    @property
    def remaining_ms(self) -> float | None:
        """Milliseconds that are left of `deadline_ms` now."""
        deadline = self.deadline_ms
        return None if deadline is None else deadline - (time.monotonic() - self._arrived) * 1000

    # -- as the context of a function for Open Runtimes

    @property
    def req(self) -> Incoming:
        """The request as Open Runtimes describes it."""
        if self._incoming is None:
            self._incoming = Incoming(self)
        return self._incoming

    @property
    def res(self) -> Outgoing:
        """What makes responses."""
        if self._outgoing is None:
            self._outgoing = Outgoing()
        return self._outgoing

    def log(self, *messages: Any) -> None:
        """Writes a line to the log."""
        if not self.silent:
            logs.emit(1, "info", message(messages))

    def error(self, *messages: Any) -> None:
        """Writes a line to the log, as an error."""
        if not self.silent:
            logs.emit(2, "error", message(messages))

    def check_nothing_returned(self) -> None:
        """Raises `NothingReturned` where the function has used `req` or `res`, and so must return a response."""
        if self._incoming is not None or self._outgoing is not None:
            raise NothingReturned

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"
