"""What the agent of a guest is told to do (`control`). Standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from martlet.microvm.control import Control
from martlet.sandbox.inside import CONFINEMENT


def wake(control: Control, network: dict[str, str] | None) -> None:
    """Makes a guest another than those that it was saved, or forked, with. Raises OSError.

    Args:
        control: leads to its agent.
        network: see `control`.
    """
    control.send(op="wake", entropy=os.urandom(64).hex(), time=time.time_ns(), network=network)


def equip(control: Control, document: dict[str, Any], token: str | None, *packed: Iterable[bytes]) -> None:
    """Gives the cell what it gets with its code; does not wait for what the agent says to that. Raises OSError.

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
