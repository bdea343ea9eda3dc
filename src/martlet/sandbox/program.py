"""How a program is started that serves a runtime's functions (docs/design.md, "The program protocol")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Program:
    """See the module. Plain data: it travels to the zygote as JSON.

    Attributes:
        command: the program with its arguments, as the sandbox sees them.
        environment: variables that it gets besides the usual ones.
        cell: ``warm``: it starts before there is code, with the cell; ``cold``: once there is.
        listen: how requests reach it: ``descriptor``, ``socket``, ``port``, ``stdio`` or ``assignments``.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    cell: Literal["warm", "cold"]
    listen: Literal["descriptor", "socket", "port", "stdio", "assignments"]
