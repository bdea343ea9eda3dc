"""What clients ask of a Lambda function: HTTP requests, which become events, and AWS's own Invoke."""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import Any

from _martlet_python.evented import Channel
from _martlet_python.http1 import Disconnected, Head, header_block, whole

from . import reply
from .event import event_of
from .invocation import Answered, Invocation, Outcome, Raised, Streamed
from .program import arn
from .reply import BadReply
from .runtime_api import RuntimeApi

_INVOKE = re.compile(r"/2015-03-31/functions/[^/?]+/invocations(\?.*)?")
_JSON = ("content-type", "application/json")
_DEFAULT_DEADLINE_MS = 30_000


class Front:
    """See the module.

    Args:
        api: hands invocations to the program.
        function: its name.
    """

    def __init__(self, api: RuntimeApi, function: str) -> None:
        self._api = api
        self._function = function

    async def answer(self, head: Head, channel: Channel) -> bool:
        """Answers one request; see `evented.Answer`."""
        body = await channel.body()
        if head.method == "POST" and _INVOKE.fullmatch(head.target):
            return await self._invoke(head, body, channel)
        invocation = self._invocation(head)
        invocation.event = event_of(head, body, invocation.id, self._function)
        self._api.put(invocation)
        try:
            return await _answer_http(head, channel, await invocation.outcome)
        except BadReply as error:
            await channel.send(reply.failure(head, "BadReply", str(error)))
            return head.keep_alive
        except Disconnected:
            return False
        finally:
            invocation.over.set()

    async def _invoke(self, head: Head, body: bytes, channel: Channel) -> bool:
        """Answers AWS's Invoke: the body is the event, and what the function says is the body."""
        refusal = _refusal(head, body)
        if refusal is not None:
            await channel.send(refusal)
            return head.keep_alive
        invocation = self._invocation(head)
        invocation.event = body or b"null"
        self._api.put(invocation)
        try:
            return await _answer_invoke(head, channel, invocation.id, await invocation.outcome)
        except Disconnected:
            return False
        finally:
            invocation.over.set()

    def _invocation(self, head: Head) -> Invocation:
        fields = head.fields
        wanted = fields.get("x-request-id", "")
        left = fields.get("x-faas-deadline", "")
        told = {
            "lambda-runtime-invoked-function-arn": arn(self._function),
            "lambda-runtime-trace-id": fields.get("x-amzn-trace-id") or _trace(),
        }
        if context := fields.get("x-amz-client-context"):
            told["lambda-runtime-client-context"] = context
        deadline = time.time() * 1000 + (int(left) if left.isdecimal() else _DEFAULT_DEADLINE_MS)
        taken = not wanted or self._api.is_running(wanted)
        return Invocation(secrets.token_hex(10) if taken else wanted, b"", int(deadline), told)


async def _answer_http(head: Head, channel: Channel, outcome: Outcome) -> bool:
    match outcome:
        case Answered(body):
            response = reply.reply_of(body)
            data = whole(head, response.status, response.fields, response.body)
        case Raised():
            data = reply.raised(head, outcome)
        case Streamed():
            return await reply.stream(head, outcome, channel)
    await channel.send(data)
    return head.keep_alive


async def _answer_invoke(head: Head, channel: Channel, request_id: str, outcome: Outcome) -> bool:
    fields = [_JSON, ("x-amz-executed-version", "$LATEST"), ("x-amzn-requestid", request_id)]
    match outcome:
        case Answered(body):
            answer = body
        case Raised(_, document):
            answer = document
            fields.append(("x-amz-function-error", "Unhandled"))
        case Streamed():
            return await reply.stream(head, outcome, channel, plain=True)
    block, _ = header_block((name.encode(), value.encode("latin-1")) for name, value in fields)
    await channel.send(whole(head, 200, block, answer))
    return head.keep_alive


def _refusal(head: Head, body: bytes) -> bytes | None:
    """Returns the response to an Invoke that is none to run."""
    kind = head.fields.get("x-amz-invocation-type", "RequestResponse")
    if kind == "DryRun":
        return whole(head, 204, b"", b"")
    if kind != "RequestResponse":
        return _aws_error(
            head,
            "InvalidParameterValueException",
            f"InvocationType {kind!r} is not served; RequestResponse is",
        )
    try:
        json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        return _aws_error(head, "InvalidRequestContentException", f"the payload is not JSON: {error}")
    return None


def _aws_error(head: Head, kind: str, message: str) -> bytes:
    fields = b"content-type: application/json\r\nx-amzn-errortype: %b\r\n" % kind.encode()
    document: dict[str, Any] = {"Type": "User", "Message": message}
    return whole(head, 400, fields, json.dumps(document).encode())


def _trace() -> str:
    return f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=0"
