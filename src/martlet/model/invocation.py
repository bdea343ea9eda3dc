"""Instances, what they were asked, and what they wrote."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from martlet.model.base import Frozen
from martlet.model.config import ExecutionMode
from martlet.model.names import FunctionName


class InstanceState(StrEnum):
    """What an instance is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"


class InstanceView(Frozen):
    """A live instance as ``/instances`` shows it."""

    id: str
    function: FunctionName
    revision: int
    node: str
    driver: ExecutionMode | Literal["fake"]
    state: InstanceState
    pid: int | None
    created: float
    last_used: float
    requests: int
    memory_bytes: int | None = None


class InvocationView(Frozen):
    """One finished run of a function, as ``/functions/{name}/invocations`` shows it."""

    id: str
    function: FunctionName
    revision: int
    status: int
    cold: bool
    started: float
    queue_ms: float
    start_ms: float
    run_ms: float
    error: str | None = None


class InvocationState(StrEnum):
    """How far an asynchronous invocation is; what has failed for good is a dead letter until somebody retries it."""

    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class InvocationAnswer(Frozen):
    """What a function has answered; ``body`` is text, or base64 where it is no UTF-8; None: it is too large."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str | None
    base64: bool = False


class Invocation(Frozen):
    """An asynchronous invocation, as ``/invocations/{id}`` shows it.

    ``target`` is the function, revision or alias it is for; ``attempts`` counts those that have ended, and ``answer``
    and ``error`` (a problem document) are of the last.
    """

    id: str
    function: FunctionName
    target: str
    state: InvocationState
    accepted: float
    attempts: int = 0
    ended: float | None = None
    answer: InvocationAnswer | None = None
    error: dict[str, Any] | None = None


class DeadInvocation(Frozen):
    """An asynchronous invocation that was tried as often as may be, as ``/functions/{name}/dead-letters`` shows it."""

    id: str
    target: str
    method: str
    path: str
    accepted: float
    died: float
    attempts: int
    bytes: int


PLATFORM = "platform"
"""The ``source`` of what the platform says itself in the log of a function."""


class LogLine(Frozen):
    """One line of a function's log. ``stream`` is stdout, stderr or the level of a logging call.

    ``source`` is function, or platform for what the platform says of the function, with its level as ``stream``;
    ``instance`` is empty where it is of none.
    """

    time: float
    function: FunctionName
    revision: int
    instance: str
    request_id: str | None
    stream: str
    message: str
    source: str = "function"
