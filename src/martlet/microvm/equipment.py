"""What a guest gets with the code of its cell, as it is told to the agent (`control`). Standard library only."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from martlet.microvm.control import Control
from martlet.sandbox.inside import CONFINEMENT


def equip(control: Control, document: dict[str, Any], token: str | None, *packed: Iterable[bytes]) -> None:
    """Says it, and does not wait for what the agent says to it. Raises OSError.

    Args:
        control: leads to the agent.
        document: the request that makes the cell a function.
        token: see `control`.
        packed: the code, and the dependencies if there are any (`folders`).
    """
    confinement = document[CONFINEMENT]
    control.send(
        op="equip",
        time=time.time_ns(),
        hostname=confinement["hostname"],
        memory=document["memory"],
        processes=confinement["processes"],
        open_files=confinement["open_files"],
        scratch=confinement["scratch"],
        dependencies=document["dependencies"] is not None,
        token=token,
    )
    for parts in packed:
        control.send_folder(parts)
