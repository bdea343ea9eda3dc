"""The lane's side of the instance contract: is a cell healthy, and make it an instance."""

from __future__ import annotations

from math import inf
from typing import Any

import orjson

from martlet.drivers.driver import DriverError, Loaded, LoadFailed, Unforkable
from martlet.http.conversation import Conversation
from martlet.http.fetch import MAX_ANSWER_OF_INSTANCE, fetch
from martlet.model import Revision

HEALTH = "/_martlet/health"
SPECIALISE = "/_martlet/specialise"


async def check_health(socket: str, patience: float) -> None:
    """Returns once the sandbox at ``socket`` says that it is able to run.

    Raises:
        DriverError: it answered something else.
        FetchError: it did not answer within ``patience`` seconds, or with something that is not HTTP.
    """
    status, _ = await fetch(socket, "GET", HEALTH, timeout=patience, at_most=MAX_ANSWER_OF_INSTANCE)
    _require_health(status)


async def greet(socket: str, patience: float) -> Conversation:
    """Does what `check_health` does, and returns the connection, over which the sandbox may get its code."""
    conversation = await Conversation.begin(socket)
    try:
        status, _ = await conversation.ask("GET", HEALTH, timeout=patience, at_most=MAX_ANSWER_OF_INSTANCE)
        _require_health(status)
    except BaseException:
        conversation.close()
        raise
    return conversation


def _require_health(status: int) -> None:
    if status != 200:
        raise DriverError(f"the sandbox answered {status} when asked for its health")


def specialisation(
    revision: Revision, code: str, dependencies: str | None, max_body: int, **of_the_driver: Any
) -> dict[str, Any]:
    """Returns the document that makes a cell an instance.

    Args:
        revision: what it becomes.
        code: where the sandbox sees the code.
        dependencies: where it sees the dependencies, or None.
        max_body: bytes of the largest request body.
        **of_the_driver: further members, for the part of the cell that belongs to the driver.
    """
    return {
        "function": revision.function,
        "revision": revision.number,
        "code": code,
        "dependencies": dependencies,
        "handler": revision.config.handler,
        "environment": revision.config.environment,
        "concurrency": revision.config.concurrency,
        "max_body": max_body,
        "memory": revision.config.memory,
    } | of_the_driver


async def specialise(
    socket: str, document: dict[str, Any], patience: float, conversation: Conversation | None = None
) -> Loaded:
    """Sends what `specialisation` returned to the cell at ``socket`` and says what became of it.

    Args:
        socket: where the cell listens.
        document: see above.
        patience: seconds that this may take.
        conversation: what `greet` has begun; one that is not open any more does not matter.

    Raises:
        LoadFailed: the user's code did not load, or answered in place of the runtime.
        Unforkable: it was to become a template, and loaded code that must not be forked.
        DriverError: the cell did not get as far as the user's code.
        FetchError: there was no answer within ``patience`` seconds.
    """
    if conversation is not None and conversation.open:
        status, body = await conversation.ask(
            "POST", SPECIALISE, document, timeout=patience, at_most=MAX_ANSWER_OF_INSTANCE
        )
    else:
        status, body = await fetch(
            socket, "POST", SPECIALISE, document, timeout=patience, at_most=MAX_ANSWER_OF_INSTANCE
        )
    try:
        said = orjson.loads(body)
        if status == 200:
            return Loaded(mode=_text(said["mode"]), load_ms=_duration(said["load_ms"]))
        error = said["error"]
        kind, message = _text(error["type"]), _text(error["message"])
        traceback = _text(error.get("traceback", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise LoadFailed("BadAnswer", f"the sandbox answered {status} and no result") from None
    if status == 422:
        raise LoadFailed(kind, message, traceback)
    if kind == Unforkable.__name__:
        raise Unforkable(message)
    raise DriverError(f"the cell took no code: {kind}: {message}")


def _duration(value: Any) -> float:
    """Takes no text, which might say "nan": what is calculated and written down needs a number."""
    if type(value) not in (int, float) or not 0 <= value < inf:
        raise ValueError(f"a {type(value).__name__} where a duration was expected")
    return float(value)


def _text(value: Any) -> str:
    """Takes nothing but text: other values may be nested so deeply that they cannot even be written down."""
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where text was expected")
    return value
