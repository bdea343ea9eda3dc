"""What the platform and an Open Runtimes function agree on in headers and paths.

``x-open-runtimes-secret`` must be what ``OPEN_RUNTIMES_SECRET`` says, ``-timeout`` bounds the run, ``-logging``
silences `context.log`, and ``-log-id`` is answered back. ``GET /__opr/health`` and ``/__opr/timings`` are the runtime's
own. All of it is looked at only where a request has such a header or path, or a secret is set.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any

from . import logs
from .context import HIDDEN
from .http1 import Head, whole
from .request import Request

_TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_TIMED_OUT = "Execution timed out."

Handler = Callable[[Request], Any]

startup = 0.0
"""Seconds that loading the code took."""


def secret() -> str:
    """Returns what requests must know; empty: they need not know anything."""
    return os.environ.get("OPEN_RUNTIMES_SECRET", "")


class Refused(Exception):
    """The headers of a request do not allow it to be run."""


class Terms:
    """What the headers of one request ask for. They are taken out of its head."""

    def __init__(self, head: Head) -> None:
        self._head = head
        fields = head.fields
        given = {name: fields.pop(name) for name in [*fields] if name.startswith(HIDDEN)}
        head.open_runtimes = False
        self._secret = given.get("x-open-runtimes-secret", "")
        self._timeout = given.get("x-open-runtimes-timeout", "")
        self._silent = given.get("x-open-runtimes-logging", "") in ("disabled", "disable")
        log_id = given.get("x-open-runtimes-log-id") or secrets.token_hex(10)
        self._stamp = b"x-open-runtimes-log-id: %b\r\n" % log_id.encode("latin-1")

    def check(self) -> None:
        """Raises `Refused` where the request must not be run."""
        if self._timeout and not (self._timeout.isdecimal() and int(self._timeout)):
            raise Refused('Header "x-open-runtimes-timeout" must be an integer greater than 0.')
        if (expected := secret()) and not hmac.compare_digest(self._secret.encode(), expected.encode()):
            raise Refused('Unauthorized. Provide correct "x-open-runtimes-secret" header.')

    def bound(self, function: Handler) -> Handler:
        """Returns a function as these terms allow it to run."""
        if not self._timeout:
            return lambda request: function(self._told(request))
        seconds = int(self._timeout)
        return lambda request: _run(function, self._told(request), seconds, self._head)

    def bound_async(self, function: Handler) -> Handler:
        """Like `bound`, for an async function."""
        if not self._timeout:
            return self.bound(function)
        seconds = int(self._timeout)
        return lambda request: _run_async(function, self._told(request), seconds)

    def stamp(self, data: bytes) -> bytes:
        """Returns bytes of the response as they are sent: the first have the log's id in their head."""
        stamp, self._stamp = self._stamp, b""
        if not stamp:
            return data
        line, end, rest = data.partition(b"\r\n")
        return b"%b%b%b%b" % (line, end, stamp, rest)

    def _told(self, request: Request) -> Request:
        request.silent = self._silent
        return request


class Stamped:
    """A channel of the evented server whose response is stamped."""

    def __init__(self, channel: Any, terms: Terms) -> None:
        self._channel = channel
        self._terms = terms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def send(self, data: bytes) -> None:
        """Sends bytes of the response."""
        await self._channel.send(self._terms.stamp(data))


def own(head: Head) -> bytes | None:
    """Returns the whole response to a request for the runtime itself; None for those for the function."""
    match head.method, head.target:
        case "GET", "/__opr/health":
            return whole(head, 200, _TEXT, b"OK")
        case "GET", "/__opr/timings":
            return whole(head, 200, _TEXT, f"startup={startup:.3f}\n".encode())
        case _:
            return None


def refusal(head: Head, refused: Refused) -> bytes:
    """Returns the whole response to a request that is not run."""
    return whole(head, 500, _TEXT, str(refused).encode())


def _run(function: Handler, request: Request, seconds: int, head: Head) -> Any:
    """Calls a function in a thread; one that takes too long is left behind in an instance that ends."""
    outcome: Future[Any] = Future()

    def call() -> None:
        try:
            outcome.set_result(function(request))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=[call], daemon=True).start()
    if wait([outcome], seconds).done:
        return outcome.result()
    head.keep_alive = False
    os.kill(os.getpid(), signal.SIGTERM)  # nothing else ends a thread
    return _timed_out(request)


async def _run_async(function: Handler, request: Request, seconds: int) -> Any:
    result = function(request)
    if not hasattr(result, "__await__"):
        return result
    task = asyncio.ensure_future(result)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if done:
        return task.result()
    task.cancel()
    return _timed_out(request)


def _timed_out(request: Request) -> Any:
    logs.emit(2, "error", _TIMED_OUT)
    return _TIMED_OUT, 500
