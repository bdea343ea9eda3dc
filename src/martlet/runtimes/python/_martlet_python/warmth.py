"""What a cell has done before it is needed, in memory that all cells share."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
import time
import token
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Any

from . import instance, logs, process
from .blocking import Connection, Server
from .failures import Failure
from .handle import SyncHandler
from .http1 import Parser
from .request import Request
from .response import respond
from .spec import Spec

# What `socket` wraps in enums, whose memory a fork would copy that goes through them.
import _socket  # isort: skip

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

_SPEC = b"""{"function": "", "revision": "", "code": "/", "dependencies": null, "handler": "token.ISEOF",
"environment": {}, "concurrency": 1, "max_body": 1}"""
_BODY = b'{"a": 1}'
_SOURCE = """
import json

def handle(request):
    return {"hello": request.get_json().get("name", "World")}
"""
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
    _exercise(_streamed)
    try:
        _exercise(_whole, body=b"")
    except KeyError as error:
        Failure.of(error)
    asyncio.run(asyncio.sleep(0))
    process.prepare()
    logs.prepare()


def practise() -> None:
    """Goes the way of taking code and of answering a request, in a process that has neither yet.

    A fork shares its memory until it writes to it, and then waits for a copy, page by page: that is most of the time
    that a first request takes, and here nobody waits for it.
    """
    _load()
    _converse()


def _load() -> None:
    """Becomes a function that is a file of the standard library, and then nobody again."""
    PathFinder.find_spec("practice", [os.sep])
    exec(compile(_SOURCE, "practice", "exec"), {})  # noqa: S102  (it is our own text)
    spec = Spec.from_json(json.loads(_SPEC))
    before = os.getcwd(), [*sys.path], sys.argv
    process.become(spec)
    logs.tell_apart(one_at_a_time=True)
    known = sys.modules.pop(token.__name__)
    started = time.perf_counter()
    try:
        loaded = instance.load(spec._replace(code=os.path.dirname(token.__file__)))
    finally:
        sys.modules[token.__name__] = known
        os.chdir(before[0])
        sys.path[:], sys.argv = before[1:]
    json.dumps({"mode": loaded.mode, "load_ms": round((time.perf_counter() - started) * 1000, 3)})


def _converse() -> None:
    """Serves a connection that a request comes over."""
    ours, theirs = _socket.socketpair()
    ours.sendall(_REQUEST % (len(_BODY), _BODY))
    ours.shutdown(_socket.SHUT_WR)
    connection = Connection(socket.socket(fileno=theirs.detach()), len(_BODY))
    Server(SyncHandler(_whole), 1, len(_BODY)).serve(connection)
    ours.close()


def _whole(request: Request) -> dict[str, Any]:
    return {
        "item": request.get_json()["a"],
        "query": request.query_params,
        "agent": request.get_header("user-agent"),
    }


def _streamed(request: Request) -> Iterator[str]:
    yield request.path


def _exercise(handler: Callable[[Request], Any], body: bytes = _BODY) -> None:
    parser = Parser(len(_REQUEST))
    parser.feed(_REQUEST % (len(body), body))
    head = parser.head()
    assert head is not None
    respond(handler(Request(head, parser.piece() or b"")))
    SyncHandler(handler)(head, body, lambda data: None)
