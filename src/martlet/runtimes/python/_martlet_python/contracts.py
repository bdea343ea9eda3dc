"""Which contract an object keeps: a handler, sync or async, or an application of a web framework."""

from __future__ import annotations

import inspect
from typing import Any, Literal

Mode = Literal["sync", "async", "asgi", "wsgi"]


class NotAHandler(Exception):
    """The object can be called by none of the contracts."""


def mode_of(target: Any, name: str) -> Mode:
    """Tells by its signature how an object wants to be called.

    ============================================  =========
    ``handle(request)``                           ``sync``
    ``async`` of the same, or an async generator  ``async``
    ``app(scope, receive, send)``                 ``asgi``
    ``app(environ, start_response)``              ``wsgi``
    ============================================  =========

    Args:
        target: what the loader found.
        name: what it was called, for the message.

    Raises:
        NotAHandler: it is not callable, or with another number of arguments.
    """
    if not callable(target):
        raise NotAHandler(f"{name!r} is of type {type(target).__name__}, which cannot be called")
    arguments = _arguments(target)
    if arguments == 3:
        return "asgi"
    if arguments == 2:
        return "wsgi"
    if arguments == 1:
        return "async" if _is_async(target) else "sync"
    raise NotAHandler(
        f"{name!r} takes {arguments} arguments: a handler takes one, the request; "
        "an application takes two (WSGI) or three (ASGI)"
    )


def _arguments(target: Any) -> int:
    """How many positional arguments it wants; one where fewer are required and one is allowed."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return 1  # written in C, without a signature: only calling it will tell
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if required == 0 and (positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)):
        return 1
    return required


def _is_async(target: Any) -> bool:
    call = getattr(target, "__call__", None)  # noqa: B004
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (target, call))
