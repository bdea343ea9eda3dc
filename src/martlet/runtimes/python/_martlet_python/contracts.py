"""Which contract an object keeps: a handler, sync or async, or an application of a web framework."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any, Literal

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

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
    arguments, is_async = _shape(target)
    if arguments == 3:
        return "asgi"
    if arguments == 2:
        return "wsgi"
    if arguments == 1:
        return "async" if is_async else "sync"
    raise NotAHandler(
        f"{name!r} takes {arguments} arguments: a handler takes one, the request; "
        "an application takes two (WSGI) or three (ASGI)"
    )


def _shape(target: Any) -> tuple[int, bool]:
    """How many positional arguments it wants (one where fewer are required and one is allowed), and if it is async."""
    if (
        isinstance(target, FunctionType)
        and target.__defaults__ is None
        and not hasattr(target, "__wrapped__")
    ):
        # Most handlers: asking `inspect` would cost a fork a hundred pages of memory.
        code = target.__code__
        if not code.co_flags & inspect.CO_VARARGS:
            return code.co_argcount, bool(code.co_flags & _ASYNC)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return 1, False  # written in C, without a signature: only calling it will tell
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if required == 0 and (positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)):
        required = 1
    call = getattr(target, "__call__", None)  # noqa: B004
    is_async = any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (target, call))
    return required, is_async
