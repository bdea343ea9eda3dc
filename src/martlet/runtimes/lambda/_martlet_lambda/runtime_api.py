"""AWS Lambda's Runtime API, as the function's program asks it.

GET  /2018-06-01/runtime/invocation/next             waits for an invocation
POST /2018-06-01/runtime/invocation/<id>/response    its answer, whole or streamed
POST /2018-06-01/runtime/invocation/<id>/error       the handler raised
POST /2018-06-01/runtime/init/error                  the code does not load
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

from _martlet_python.evented import Channel, Server
from _martlet_python.http1 import Head, Parser, header_block, whole

from .invocation import Answered, Invocation, Raised, Streamed
from .output import Output

PREFIX = "/2018-06-01/runtime/"
MAX_POST = 1 << 40
"""Bytes of an answer; the memory of the sandbox is the limit."""

WITH_PRELUDE = "application/vnd.awslambda.http-integration-response"
"""The type of an answer that begins with a JSON object (status, headers) and eight NUL bytes."""

_JSON = b"content-type: application/json\r\n"


class InitError(Exception):
    """The program says that its code does not load; the document is its own."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document)
        self.document = document


class RuntimeApi:
    """See the module.

    Args:
        programs: how many ask.

    Attributes:
        ready: done once all programs have asked for an invocation; fails with `InitError`.
    """

    def __init__(self, programs: int) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._programs = programs
        self._asked: set[Output] = set()
        self._waiting: asyncio.Queue[Invocation] = asyncio.Queue()
        self._running: dict[str, Invocation] = {}

    async def listen(self, output: Output) -> int:
        """Begins to answer one program, on the loopback.

        Args:
            output: what that program prints.

        Returns:
            The port, by which the program is known from the others.
        """
        server = Server(partial(self._answer, output), MAX_POST)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: Channel(server, Parser(MAX_POST)), "127.0.0.1", 0)
        port: int = listening.sockets[0].getsockname()[1]
        return port

    def put(self, invocation: Invocation) -> None:
        """Lets the next program that asks have an invocation."""
        self._running[invocation.id] = invocation
        self._waiting.put_nowait(invocation)

    def is_running(self, id: str) -> bool:  # noqa: A002
        """Whether an invocation of this id is not yet answered."""
        return id in self._running

    async def _answer(self, output: Output, head: Head, channel: Channel) -> bool:
        path = head.target.partition("?")[0]
        match head.method, path.removeprefix(PREFIX).split("/"):
            case "GET", ["invocation", "next"]:
                await channel.send(await self._next(output, head, channel))
            case "POST", ["invocation", id, "response"]:
                await channel.send(await self._respond(output, head, channel, id))
            case "POST", ["invocation", id, "error"]:
                await channel.send(await self._fail(output, head, channel, id))
            case "POST", ["init", "error"]:
                await channel.send(await self._fail_to_load(head, channel))
            case _:
                await channel.body()
                await channel.send(_refusal(head, 404, "NotFound", f"there is no {head.method} {path}"))
        return head.keep_alive

    async def _next(self, output: Output, head: Head, channel: Channel) -> bytes:
        channel.cancel_when_gone()
        output.belongs_to(None)
        self._asked.add(output)
        if len(self._asked) >= self._programs and not self.ready.done():
            self.ready.set_result(None)
        invocation = await self._waiting.get()
        output.belongs_to(invocation.id)
        fields = {
            "content-type": "application/json",
            "lambda-runtime-aws-request-id": invocation.id,
            "lambda-runtime-deadline-ms": str(invocation.deadline_ms),
            **invocation.fields,
        }
        block, _ = header_block((name.encode(), value.encode("latin-1")) for name, value in fields.items())
        return whole(head, 200, block, invocation.event)

    async def _respond(self, output: Output, head: Head, channel: Channel, id: str) -> bytes:  # noqa: A002
        streamed = _is_streamed(head)
        body = b"" if streamed else await channel.body()
        output.take() if streamed else output.finish()
        invocation = self._running.pop(id, None)
        if invocation is None:
            return _unknown(head, id)
        if streamed:
            invocation.outcome.set_result(Streamed(head.fields, channel, output.finish))
            await invocation.over.wait()
            await channel.body()  # what nobody wanted any more
        else:
            invocation.outcome.set_result(Answered(body))
        return _accepted(head)

    async def _fail(self, output: Output, head: Head, channel: Channel, id: str) -> bytes:  # noqa: A002
        body = await channel.body()
        output.finish()
        invocation = self._running.pop(id, None)
        if invocation is None:
            return _unknown(head, id)
        kind = head.fields.get("lambda-runtime-function-error-type", "")
        invocation.outcome.set_result(Raised(kind, body))
        return _accepted(head)

    async def _fail_to_load(self, head: Head, channel: Channel) -> bytes:
        body = await channel.body()
        if self.ready.done():
            return _refusal(head, 403, "InvalidStateTransition", "the code has been loaded")
        self.ready.set_exception(
            InitError(error_of(body, head.fields.get("lambda-runtime-function-error-type", "")))
        )
        return _accepted(head)


def _is_streamed(head: Head) -> bool:
    """Whether an answer is to be sent on as it comes. Only such a one has a prelude."""
    return (
        head.fields.get("lambda-runtime-function-response-mode", "").lower() == "streaming"
        or head.fields.get("content-type") == WITH_PRELUDE
    )


def error_of(document: bytes, kind: str) -> dict[str, Any]:
    """Reads what a program says of an error: ``type``, ``message`` and ``traceback`` as the platform has them."""
    try:
        said = json.loads(document)
    except (ValueError, RecursionError):
        said = {"errorMessage": document.decode("utf-8", "replace")}
    if not isinstance(said, dict):
        said = {"errorMessage": said}
    trace = said.get("stackTrace") or said.get("stack") or []
    return {
        "type": str(said.get("errorType") or kind or "Error"),
        "message": str(said.get("errorMessage", "")),
        "traceback": "\n".join(map(str, trace)) if isinstance(trace, list) else str(trace),
    }


def _accepted(head: Head) -> bytes:
    return whole(head, 202, _JSON, b'{"status":"OK"}\n')


def _unknown(head: Head, id: str) -> bytes:  # noqa: A002
    return _refusal(head, 400, "InvalidRequestID", f"no invocation {id!r} runs")


def _refusal(head: Head, status: int, kind: str, message: str) -> bytes:
    return whole(head, status, _JSON, json.dumps({"errorType": kind, "errorMessage": message}).encode())
