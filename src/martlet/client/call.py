"""A request to the platform as data, and a plan: requests in a row with what is done between them.

Each method of the clients is written once, as a plan: a generator that yields `Call`s and is sent their
responses. All that differs between waiting and awaiting is how a plan is run: `client`, `async_client`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeAlias, TypeVar
from urllib.parse import quote

from martlet.client.errors import ClientError, Unreachable

if TYPE_CHECKING:
    import httpx2

Document: TypeAlias = dict[str, Any]
Body: TypeAlias = bytes | str | BinaryIO | Iterator[bytes] | AsyncIterator[bytes]
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Plan: TypeAlias = Generator["Call", "httpx2.Response", Result]


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        method: the HTTP method.
        path: the path, already quoted.
        query: parameters; those that are None are left out.
        headers: headers besides the key.
        json: the body as JSON, or None.
        body: the body as bytes, text, an open file or an iterator of bytes, or None.
        form: the fields of a multipart body, or None.
        upload: the file of a multipart body, sent as the part ``archive``, or None.
        of_function: whether a function answers: then only the platform's own problem documents are errors.
        on_event: called with the JSON of each server-sent event; the answer is such a stream then.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: Body | None = None
    form: Mapping[str, str] | None = None
    upload: BinaryIO | None = None
    of_function: bool = False
    on_event: Callable[[Any], None] | None = None

    def arguments(self) -> dict[str, Any]:
        """Returns the request as keyword arguments of ``httpx2.Client.build_request``.

        Raises:
            ClientError: a header has characters that none may have.
        """
        given: dict[str, Any] = {
            "method": self.method,
            "url": self.path,
            "headers": {name: _header(name, value) for name, value in self.headers.items()},
            "params": {name: _text(value) for name, value in self.query.items() if value is not None} or None,
        }
        if self.json is not None:
            given["json"] = self.json
        if self.body is not None:
            given["content"] = self.body
        if self.form is not None:
            given["data"] = self.form
        if self.upload is not None:
            given["files"] = {"archive": ("archive.tar.gz", self.upload, "application/gzip")}
        return given


def one(call: Call) -> Plan[Document]:
    """Makes the request and returns the JSON object it is answered with."""
    answer: Document = _json((yield call))
    return answer


def many(call: Call) -> Plan[list[Document]]:
    """Makes the request and returns the JSON list it is answered with."""
    answer: list[Document] = _json((yield call))
    return answer


def answered(call: Callable[Arguments, Call]) -> Callable[Arguments, Plan[httpx2.Response]]:
    """Makes a plan of a function that describes a single request: its answer is returned as it is."""

    @wraps(call)
    def plan(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Plan[httpx2.Response]:
        return (yield call(*args, **kwargs))

    return plan


def none(call: Call) -> Plan[None]:
    """Makes the request; there is nothing to return."""
    yield call


def segment(text: str | int) -> str:
    """Quotes one part of a path; ``@`` stays, for ``hello@3``."""
    return quote(str(text), safe="@")


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        url = f"{response.url.scheme}://{response.url.netloc.decode()}"
        raise Unreachable(f"what answers at {url} is not Martlet: set MARTLET_URL to where it runs") from None


def _header(name: str, value: str) -> str:
    if not f"{name}{value}".isascii() or not f"{name}{value}".isprintable():
        raise ClientError(f"the header {name!r} has characters that no header may have: write plain ASCII")
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
