"""Times and sizes as people read them."""

from __future__ import annotations

import re
import time
from datetime import datetime

import typer

_DURATION = re.compile(r"(\d+)(s|m|h|d)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def age(seconds_since_epoch: float | None) -> str | None:
    """Writes how long ago something was: ``3 min ago``; None for what never was."""
    if seconds_since_epoch is None:
        return None
    seconds = max(0.0, time.time() - seconds_since_epoch)
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"


def clock(seconds_since_epoch: float) -> str:
    """Writes a moment as the local time of day, with milliseconds."""
    return datetime.fromtimestamp(seconds_since_epoch).strftime("%H:%M:%S.%f")[:-3]


def moment(seconds_since_epoch: float | None) -> str | None:
    """Writes a moment as local date and time; None for what never is."""
    if seconds_since_epoch is None:
        return None
    return datetime.fromtimestamp(seconds_since_epoch).strftime("%Y-%m-%d %H:%M:%S")


def mebibytes(size: int | None) -> str | None:
    """Writes bytes as ``12.3 MiB``."""
    return None if size is None else f"{size / 1024**2:.1f} MiB"


def milliseconds(duration: float | None) -> str | None:
    """Writes a duration given in ms as ``1.25 ms`` or ``3.1 s``."""
    if duration is None:
        return None
    return f"{duration / 1000:.1f} s" if duration >= 1000 else f"{duration:.2f} ms"


def seconds(text: str, option: str) -> float:
    """Reads a time as people write it: ``90s``, ``15m``. Raises `typer.BadParameter`, which names the option."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a time: write one such as 90s, 15m, 12h or 30d", param_hint=option
        )
    return float(int(match[1]) * _SECONDS[match[2] or "s"])
