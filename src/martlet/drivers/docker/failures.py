"""Why a cell did not become an instance."""

from __future__ import annotations

import asyncio

from martlet.drivers.docker.cell import Cell
from martlet.drivers.driver import LoadFailed
from martlet.http.fetch import FetchError
from martlet.units import format_bytes

_LAST_WORDS_SECONDS = 2.0


async def why_no_answer(cell: Cell, memory: int, error: FetchError) -> LoadFailed:
    """Returns why a cell with so much memory did not answer when it was given code."""
    await asyncio.wait([cell.ended], timeout=_LAST_WORDS_SECONDS)
    if failure := out_of_memory(cell, memory):
        return failure
    if not cell.ended.done():
        return LoadFailed("BadAnswer", f"the code answered in place of the runtime: {error}")
    code = cell.ended.result()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return LoadFailed("Crashed", f"the process {how} while it loaded the code")


def out_of_memory(cell: Cell, memory: int) -> LoadFailed | None:
    """Returns what to say of a cell whose processes the kernel has ended for memory; None where it has not."""
    stats = cell.stats()
    if stats is None or not stats.oom_kills:
        return None
    return LoadFailed(
        "OutOfMemory", f"loading the code took more than its memory limit of {format_bytes(memory)}"
    )
