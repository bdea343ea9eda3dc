"""What is around every request: its id, and an answer even when something is wrong inside."""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from martlet.control.problems import answer
from martlet.errors import MartletError
from martlet.model import MiB
from martlet.units import format_bytes

log = structlog.get_logger()

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
LONGEST_DOCUMENT = 2 * MiB
"""Bytes of a body that is JSON: it is read as a whole, and 20 bytes of memory for each of its own may be needed."""


class Envelope:
    """Gives each request the id that the gateway gave it, or a new one, and repeats it in the answer.

    Bodies that are no archives are short. What goes wrong inside stays inside, and in the log. A body that its sender
    has not described is JSON; no other kind is taken without being named, so ``curl -d`` needs no further header.
    Whatever answers GET answers HEAD, with the head of the same answer, which for a stream is all that there is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(10)
        scope["headers"] = [
            (name, value) for name, value in scope["headers"] if not _says_nothing(name, value)
        ]
        scope.setdefault("state", {})["request_id"] = request_id
        started = False
        received = 0
        archive = _is_archive(scope)
        only_head = scope["method"] == "HEAD"

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LONGEST_DOCUMENT and not archive:
                longest = format_bytes(LONGEST_DOCUMENT)
                raise HTTPException(413, f"the document is over {longest}; send larger code as an archive")
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                await send(message)
                if only_head:
                    await send({"type": "http.response.body"})
            elif not only_head:
                await send(message)

        try:
            await self._app({**scope, "method": "GET"} if only_head else scope, receive_bounded, send_with_id)
        except Exception:
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            if started:
                raise
            await answer(MartletError(), request_id)(scope, receive, send_with_id)


def _says_nothing(name: bytes, value: bytes) -> bool:
    """Whether a header is the type that curl gives to every body that it is not told about."""
    return name == b"content-type" and value.startswith(b"application/x-www-form-urlencoded")


def _is_archive(scope: Scope) -> bool:
    """Whether the body may be an archive, as it is or in a form: it is written to a file while it comes."""
    path: str = scope["path"]
    return (
        path == "/images"
        or path.endswith("/code")
        or any(
            name == b"content-type" and value.lower().startswith(b"multipart/form-data")
            for name, value in scope["headers"]
        )
    )
