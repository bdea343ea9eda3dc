"""What a cell has done before it is needed, in memory that all cells share."""

from __future__ import annotations

import asyncio
import importlib
import keyword
import os
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from . import logs, process
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
    """Prepares the process that cells are forked from. Leaves no thread and no descriptor behind."""
    for name in _POPULAR:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # a small build of Python: the functions will say what they miss
    practise()
    try:
        _exercise(_whole, body=b"")
    except KeyError as error:
        Failure.of(error)
    asyncio.run(asyncio.sleep(0))
    process.prepare()
    logs.prepare()


def practise() -> None:
    """Goes the way of loading code and answering a request, in a cell that has none of either yet.

    A fork shares its memory until it writes to it, and then waits for a copy, page by page: that is most of the time
    that a first request takes, and here nobody waits for it.
    """
    PathFinder.find_spec("practice", [os.sep])
    spec = spec_from_file_location("practice", keyword.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))
    exec(compile(_SOURCE, "practice", "exec"), {})  # noqa: S102  (it is our own text)
    for handler in (_whole, _streamed):
        mode_of(handler, "handle")
        _exercise(handler)


_SOURCE = """
import json

def handle(request):
    return {"hello": request.get_json().get("name", "World")}
"""


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
