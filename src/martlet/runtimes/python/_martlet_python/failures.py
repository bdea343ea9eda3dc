"""What people are told when their code raises: the user's part of the traceback, and an answer."""

from __future__ import annotations

import importlib
import json
import os
import traceback
from pathlib import Path
from typing import NamedTuple

from . import logs
from .http1 import Head, whole
from .request import BadJson

MESSAGE_CHARACTERS = 4096
"""Longest message that travels in an answer; the log has all of it."""

_OURS = f"{Path(__file__).parent}{os.sep}"
_NOT_THE_USERS = (_OURS, "<frozen importlib", importlib.__file__)
_NOT_JSON = "The request body is not JSON"


class Failure(NamedTuple):
    """An exception in words: its type, its message, and the traceback without the platform's own frames."""

    type: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describes an exception; one whose own ``__str__`` fails is described too."""
        report = traceback.TracebackException.from_exception(error)
        _keep_user_frames(report)
        try:
            message = str(error)
        except Exception:
            message = "(the exception cannot say its message)"
        return cls(type(error).__name__, message[:MESSAGE_CHARACTERS], "".join(report.format()))

    def log(self) -> None:
        """Writes the traceback to the log, on the stream ``error``."""
        logs.emit(2, "error", self.traceback.rstrip("\n"))


def answer(error: BaseException, head: Head) -> bytes:
    """Returns the whole response to a request whose handler raised, and logs the traceback.

    It is 500 as the instance contract has it; or 400 and no log where the request's body was not JSON and the handler
    let `BadJson` pass.
    """
    if isinstance(error, BadJson):
        fields = b"content-type: application/problem+json\r\n"
        body = {
            "type": "about:blank",
            "status": 400,
            "code": "bad_json",
            "title": _NOT_JSON,
            "detail": str(error),
            "request_id": head.fields.get("x-request-id"),
        }
        return whole(head, 400, fields, json.dumps(body).encode())
    failure = Failure.of(error)
    failure.log()
    name = failure.type.encode("ascii", "replace")
    fields = b"content-type: application/json\r\nx-martlet-error: %b\r\n" % name
    return whole(head, 500, fields, json.dumps({"type": failure.type, "message": failure.message}).encode())


def _keep_user_frames(report: traceback.TracebackException) -> None:
    """Drops our frames and the import machinery's, in the exception and in those it came from."""
    report.stack = traceback.StackSummary.from_list(
        [frame for frame in report.stack if not frame.filename.startswith(_NOT_THE_USERS)]
    )
    others = [report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())]
    for other in others:
        if other is not None:
            _keep_user_frames(other)
