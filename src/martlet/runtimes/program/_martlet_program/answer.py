"""What a program says of the code, on a descriptor of its own: one line of JSON, which nobody needs to believe."""

from __future__ import annotations

import json
import os
import select
from math import isfinite
from typing import Any

from .child import Child

_MAX_ANSWER = 1024 * 1024
_RECEIVE_BYTES = 64 * 1024
_LAST_WORDS_SECONDS = 1.0
_BAD = "the runtime said of the code what is no answer"

Answer = tuple[int, dict[str, Any]]
"""Status and document of the answer to whoever specialises the cell."""


def hear(child: Child) -> Answer:
    """Waits for what a program says, or for its end."""
    line = read_line(child)
    if line is not None:
        return judge(line)
    if child.ended(_LAST_WORDS_SECONDS):
        return crashed(child)
    return _refusal("BadAnswer", "the runtime closed the descriptor for its answer without one")


def crashed(child: Child) -> Answer:
    """Returns the answer for a program that has ended before it gave one."""
    code = child.code()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return _refusal("Crashed", f"the process {how} while it loaded the code")


def not_started(error: OSError) -> Answer:
    """Returns the answer for a program that cannot be executed."""
    return _refusal("Crashed", f"the runtime does not start: {error}")


def image_not_started(error: OSError) -> Answer:
    """Likewise for that of an image."""
    return _refusal("NotStarted", f"the program of the image does not start: {error}")


def read_line(child: Child) -> bytes | None:
    """Returns the line; None where the program closes the descriptor, or ends, without one."""
    said = b""
    events = select.poll()
    events.register(child.answer, select.POLLIN)
    events.register(child.end, select.POLLIN)
    while b"\n" not in said and len(said) <= _MAX_ANSWER:
        ready = {descriptor for descriptor, _ in events.poll()}
        # Looked at first: what a program says is there before it has ended.
        if child.answer not in ready:
            return None
        piece = os.read(child.answer, _RECEIVE_BYTES)
        if not piece:
            return said or None
        said += piece
    return said


def judge(line: bytes) -> Answer:
    """Returns the answer that a program's line makes."""
    if len(line) > _MAX_ANSWER:
        return _refusal("BadAnswer", f"{_BAD}: it is over {_MAX_ANSWER} bytes")
    try:
        said = json.loads(line)
        if "error" in said:
            error = said["error"]
            return _refusal(_text(error["type"]), _text(error["message"]), _text(error.get("traceback", "")))
        return 200, {"mode": _text(said["mode"]), "load_ms": _number(said["load_ms"])}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _refusal("BadAnswer", _BAD)


def _refusal(kind: str, message: str, traceback: str = "") -> Answer:
    return 422, {"error": {"type": kind, "message": message, "traceback": traceback}}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where text was expected")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value) or value < 0:
        raise ValueError(f"a {type(value).__name__} where a duration was expected")
    return float(value)
