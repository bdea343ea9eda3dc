"""What a cell has done before it is needed, in memory that all cells share."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import socket
import sys
import token
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Any

from . import internal, loader
from .blocking import Connection
from .cell import Cell
from .failures import Failure
from .handle import SyncHandler
from .http1 import Parser
from .instance import Instance
from .reception import Reception
from .request import Request
from .response import respond

# What `signal` and `socket` wrap in enums, whose memory a fork would copy that goes through them.
import _signal  # type: ignore[import-not-found]  # isort: skip
import _socket  # isort: skip

_SIGTERM = int(_signal.SIGTERM)

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

_SPEC = json.dumps(
    {
        "function": "",
        "revision": "",
        "code": "/",
        "dependencies": None,
        "handler": "handle",
        "environment": {},
        "concurrency": 1,
        "max_body": 1024,
    }
).encode()
_BODY = b'{"a": 1}'
_SOURCE = b"""
import json

def handle(request):
    return {"hello": request.get_json().get("name", "World")}
"""
EXAMPLE = {
    "handler.py": """
import json
import os

GREETING = os.environ.get("GREETING", "Hello")

def handle(request):
    name = request.get_json()["name"] if request.body else request.query_params.get("of")
    return {"message": f"{GREETING}, {name or 'you'}!"}
"""
}
"""The files of a function as many are."""
_HEAD = (
    b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"x-request-id: 0\r\n\r\n%b"
)


def warm() -> None:
    """Goes all the ways that cells often go, once. Leaves no thread and no descriptor behind."""
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


def practise() -> None:
    """Goes the way of taking code and of answering a request, in a process that has neither yet.

    A fork shares its memory until it writes to it, and then waits for a copy, page by page: that is most of the time
    that a first request takes, and here nobody waits for it.
    """
    ours, theirs = (socket.socket(fileno=end.detach()) for end in _socket.socketpair())
    connection = Connection(theirs, len(_SPEC), _rest)
    before = os.getcwd(), [*sys.path], sys.argv, _signal.getsignal(_SIGTERM)
    # A stop that comes meanwhile is not for who practises.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_SIGTERM,))
    try:
        instance = _receive(ours, connection)
        ours.sendall(_message(b"/items?x=1", _BODY))
        ours.shutdown(_socket.SHUT_WR)
        with contextlib.suppress(OSError):  # from where it is to wait for further connections, none can come
            instance.run(ours, connection, _rest)
    finally:
        os.chdir(before[0])
        sys.path[:], sys.argv = before[1:3]
        _signal.signal(_SIGTERM, before[3])
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_SIGTERM,))
        ours.close()


def _receive(ours: socket.socket, connection: Connection) -> Instance:
    """Becomes a function of a few lines, told so over a connection."""
    PathFinder.find_spec("practice", [os.sep])  # for a function that has modules of its own
    loader.read(token.__file__)
    loader.run("handler", "/handler.py", _SOURCE)  # more than that would be memory that stays copied
    ours.sendall(_message(internal.SPECIALISE.encode(), _SPEC))
    cell = Cell(None, files_in=lambda code: ["handler.py"])
    try:
        Reception(cell.specialise, rest=_rest).receive(ours, connection)
    finally:
        del sys.modules["handler"]
    assert cell.instance is not None
    return cell.instance


def _rest(descriptor: int) -> None:
    """What is never called, as nobody waits."""


def _message(target: bytes, body: bytes) -> bytes:
    return _HEAD % (target, len(body), body)


def _whole(request: Request) -> dict[str, Any]:
    return {
        "item": request.get_json()["a"],
        "query": request.query_params,
        "agent": request.get_header("user-agent"),
    }


def _streamed(request: Request) -> Iterator[str]:
    yield request.path


def _exercise(handler: Callable[[Request], Any], body: bytes = _BODY) -> None:
    parser = Parser(len(_BODY))
    parser.feed(_message(b"/items?x=1", body))
    head = parser.head()
    assert head is not None
    respond(handler(Request(head, parser.piece() or b"")))
    SyncHandler(handler)(head, body, lambda data: None)
