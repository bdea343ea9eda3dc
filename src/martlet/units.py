"""Quantities as people write them: ``256Mi`` of memory, ``100m`` of a core, ``1000/min``."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_FACTORS = {
    "": 1,
    "k": 1000,
    "K": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
}
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(Ki|Mi|Gi|k|K|M|G)?B?")
_CORES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(m)?")
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*(s|sec|second|m|min|minute|h|hour)")
_PERIODS = {"s": 1, "m": 60, "h": 3600}


class EventRate(NamedTuple):
    """``events`` in ``seconds``; no events means there is no limit."""

    events: int
    seconds: int


NO_LIMIT = EventRate(0, 1)


def parse_bytes(value: Any) -> int:
    """Reads ``268435456``, ``"256Mi"``, ``"256MiB"`` or ``"1.5Gi"`` as bytes.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a size: write a number of bytes, or one with Ki, Mi or Gi (256Mi)"
        )
    return int(float(match[1]) * _FACTORS[match[2] or ""])


def format_bytes(value: int) -> str:
    """Writes bytes in the largest binary unit that divides them: ``268435456`` is ``256Mi``."""
    for unit in ("Gi", "Mi", "Ki"):
        if value and value % _FACTORS[unit] == 0:
            return f"{value // _FACTORS[unit]}{unit}"
    return str(value)


def parse_millicores(value: Any) -> int:
    """Reads ``"100m"``, ``0.5``, ``"0.5"`` or ``2`` (cores) as thousandths of a core.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    match = _CORES.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is not an amount of CPU: write cores (0.5) or thousandths of one (500m)")
    return int(float(match[1]) * (1 if match[2] else 1000))


def format_millicores(value: int) -> str:
    """Writes thousandths of a core: ``100`` is ``100m``."""
    return f"{value}m"


def parse_rate(value: Any) -> EventRate:
    """Reads ``"1000/min"``, ``"50/s"`` or ``"100/h"``; ``0`` and ``"off"`` mean no limit.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    if isinstance(value, EventRate):
        return value
    if value in (0, "0", "off") and value is not False:
        return NO_LIMIT
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{value!r} is not a rate: write one such as 1000/min, 50/s, or off")
    return EventRate(int(match[1]), _PERIODS[match[2][0]])


def format_rate(value: EventRate) -> str:
    """Writes a rate as `parse_rate` reads it."""
    period = {1: "s", 60: "min", 3600: "h"}[value.seconds]
    return f"{value.events}/{period}" if value.events else "off"


def _schema(number: dict[str, Any], pattern: str, example: str) -> WithJsonSchema:
    """Returns the description of a number or a text; answers have the text."""
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern, "examples": [example]}]})


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    PlainSerializer(format_bytes, return_type=str),
    _schema(
        {"type": "integer", "minimum": 0},
        r"^[0-9]{1,18}(\.[0-9]{1,18})?\s*(Ki|Mi|Gi|k|K|M|G)?B?$",
        "256Mi",
    ),
]
Millicores = Annotated[
    int,
    BeforeValidator(parse_millicores),
    PlainSerializer(format_millicores, return_type=str),
    _schema({"type": "number", "minimum": 0}, r"^[0-9]{1,18}(\.[0-9]{1,18})?m?$", "500m"),
]
Rate = Annotated[
    EventRate,
    BeforeValidator(parse_rate),
    PlainSerializer(format_rate, return_type=str),
    _schema(
        {"const": 0},
        r"^(0|off|[1-9][0-9]{0,8}\s*/\s*(s|sec|second|m|min|minute|h|hour))$",
        "1000/min",
    ),
]
