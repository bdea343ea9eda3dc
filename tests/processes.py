"""What the kernel says of processes."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import BinaryIO


def status_of(pid: int | str = "self") -> dict[str, str]:
    """Returns the lines of a process's ``/proc/<pid>/status``."""
    with open(f"/proc/{pid}/status") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not; nor does one that ends while this is asked."""
    try:
        return status_of(pid)["State"][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def owned(pid: int, entries: BinaryIO | None = None) -> set[int]:
    """Returns the addresses of the pages of a process that it can write to, and shares with nobody and with no file.

    Args:
        pid: of the process.
        entries: its ``/proc/<pid>/pagemap``, where that is open already.
    """
    found = set()
    with open(f"/proc/{pid}/maps") as maps, ExitStack() as stack:
        pages = entries or stack.enter_context(open(f"/proc/{pid}/pagemap", "rb", buffering=0))
        for line in maps:
            place, kind = line.split()[:2]
            begin, end = (int(each, 16) for each in place.split("-"))
            if kind.startswith("rw") and kind.endswith("p"):
                pages.seek(begin // 4096 * 8)
                entries = struct.unpack(f"{(end - begin) // 4096}Q", pages.read((end - begin) // 4096 * 8))
                found |= {
                    begin + number * 4096
                    for number, entry in enumerate(entries)
                    if entry >> 56 & 0xA1 == 0x81
                }
    return found
