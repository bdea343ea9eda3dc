"""One event on its way through the function's program, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from _martlet_python.evented import Channel


class Answered(NamedTuple):
    """The program has a whole answer."""

    body: bytes


class Streamed(NamedTuple):
    """The program answers piece by piece: they are read from its channel, by whoever sends them on, and who calls
    ``before_end`` before the last one.
    """

    fields: Mapping[str, str]
    channel: Channel
    before_end: Callable[[], None]


class Raised(NamedTuple):
    """The handler raised; ``document`` is what the program says of it, as JSON."""

    kind: str
    document: bytes


Outcome = Answered | Streamed | Raised


class Invocation:
    """See the module.

    Attributes:
        id: no other one that runs has it.
        event: JSON.
        deadline_ms: milliseconds since the epoch.
        fields: further headers that the program is told.
        outcome: what the program made of it.
        over: whether nobody reads a streamed answer any more.
    """

    def __init__(self, id: str, event: bytes, deadline_ms: int, fields: Mapping[str, str]) -> None:  # noqa: A002
        self.id = id
        self.event = event
        self.deadline_ms = deadline_ms
        self.fields = fields
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
