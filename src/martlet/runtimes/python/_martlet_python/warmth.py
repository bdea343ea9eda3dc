"""What a cell has done before it is needed, in memory that all cells share."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from .contracts import mode_of
from .failures import Failure
from .handle import SyncHandler
from .http1 import Parser
from .request import Request
from .response import respond

_POPULAR = (
    "asyncio",
    "collections",
    "concurrent.futures",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "email.message",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "html",
    "http.client",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "pathlib",
    "random",
    "re",
    "secrets",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "urllib.request",
    "uuid",
    "zoneinfo",
)
"""Modules that functions often import: loaded once for all of them."""

_REQUEST = (
    b"POST /items?x=1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-request-id: 0\r\n"
    b"content-length: %d\r\n\r\n%b"
)


def warm() -> None:
    """Imports popular modules and takes the way of a first request. Leaves no thread and no descriptor behind."""
    for name in _POPULAR:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # a small build of Python: the functions will say what they miss
    for handler in (_whole, _streamed):
        mode_of(handler, "handle")
        _exercise(handler)
    try:
        _exercise(_whole, body=b"")
    except KeyError as error:
        Failure.of(error)
    asyncio.run(asyncio.sleep(0))


def _whole(request: Request) -> dict[str, Any]:
    return {
        "item": request.get_json()["a"],
        "query": request.query_params,
        "agent": request.get_header("user-agent"),
    }


def _streamed(request: Request) -> Iterator[str]:
    yield request.path


def _exercise(handler: Callable[[Request], Any], body: bytes = b'{"a": 1}') -> None:
    parser = Parser(len(_REQUEST))
    parser.feed(_REQUEST % (len(body), body))
    head = parser.head()
    assert head is not None
    respond(handler(Request(head, parser.piece() or b"")))
    SyncHandler(handler)(head, body, lambda data: None)
