"""The contract ``app(environ, start_response)``: a WSGI application (PEP 3333)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from . import logs
from .blocking import Send
from .failures import Failure, answer
from .http1 import Disconnected, Framing, Head, header_block

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Application:
    """Runs a WSGI application for the blocking server.

    Args:
        app: the user's.
        threads: whether several requests run at once.
    """

    def __init__(self, app: App, threads: bool) -> None:
        self._app = app
        self._threads = threads

    def __call__(self, head: Head, body: bytes, send: Send) -> bool:
        """Answers one request; see `blocking.Answer`."""
        framing = Framing(head)
        try:
            _Exchange(framing, send).run(self._app, self._environ(head, body))
        except Disconnected:
            raise
        except BaseException as error:
            if framing.started:
                Failure.of(error).log()
                return False
            refusal = answer(error, head)
            logs.finish()
            send(refusal)
            return head.keep_alive
        return framing.keep_alive

    def _environ(self, head: Head, body: bytes) -> dict[str, Any]:
        fields = head.fields
        path, _, query = head.target.partition("?")
        scheme = fields.get("x-forwarded-proto", "http")
        host, _, port = fields.get("x-forwarded-host", fields.get("host", "")).partition(":")
        environ = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": _native(fields.get("x-forwarded-prefix", "")),
            "PATH_INFO": _native(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": fields.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": host or "localhost",
            "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
            "SERVER_PROTOCOL": f"HTTP/1.{head.minor}",
            "REMOTE_ADDR": fields.get("x-forwarded-for", "").rpartition(",")[2].strip(),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BytesIO(body),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self._threads,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in fields.items():
            if "_" not in name and name not in ("content-type", "content-length"):
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ


class _Exchange:
    """One request: remembers what the application says about its response and sends the body as it comes."""

    def __init__(self, framing: Framing, send: Send) -> None:
        self._framing = framing
        self._send = send

    def run(self, app: App, environ: dict[str, Any]) -> None:
        pieces = app(environ, self._start_response)
        try:
            if isinstance(pieces, list | tuple):
                self._finish(b"".join(map(_checked, pieces)))
                return
            for piece in pieces:
                if _checked(piece):
                    self._write(piece)
            self._finish(b"")
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None:
            if self._framing.started:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._framing.ready:
            raise RuntimeError("the application called start_response twice")
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._framing.start(int(status[:3]), *header_block(pairs))
        return self._write

    def _write(self, data: bytes) -> None:
        self._send(self._ready().send(data, more=True))

    def _finish(self, data: bytes) -> None:
        last = self._ready().send(data, more=False)
        logs.finish()
        self._send(last)

    def _ready(self) -> Framing:
        if not self._framing.ready:
            raise RuntimeError("the application did not call start_response")
        return self._framing


def _checked(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    raise TypeError(
        f"a WSGI application yields bytes, and this is of type {type(piece).__name__} "
        "(a callable with two arguments is taken for one; a handler has one argument, the request)"
    )


def _native(path: str) -> str:
    """A decoded path as PEP 3333 wants it: its bytes, read as Latin-1."""
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
