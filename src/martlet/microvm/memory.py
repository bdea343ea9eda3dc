"""The memory of a process of a guest.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

from contextlib import suppress

from martlet.sandbox import syscalls

_OWN = "rw-p"


def own() -> None:
    """Has this process have all of its memory for itself, and be able to write there.

    What it shares with the process that it was forked from, or has never used, it would have to be given page by page
    when it writes to it, for which an emulated processor takes long. In the saved machine that costs a clone nothing.
    """
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, kind = line.split()[:2]
            if kind == _OWN:
                begin, end = (int(each, 16) for each in place.split("-"))
                with suppress(OSError):  # what is no memory, or has been given back meanwhile
                    syscalls.populate(begin, end - begin)
