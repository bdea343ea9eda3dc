"""The first clone of a machine, which is there to be looked at: what it writes to, the others will. It serves nobody.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator

from martlet.microvm.control import CONTROL, LINKS
from martlet.microvm.forked_machine import forked, go_on
from martlet.microvm.instructions import wake
from martlet.microvm.orders import Orders, Server
from martlet.microvm.rehearsal import Example, Guest, live

_PAGE = 4096
_PRESENT, _OF_A_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
_ENTRY = struct.Struct("<Q")


def written_by(server: Server, example: Example, patience: float) -> list[tuple[int, int]]:
    """Forks a clone that becomes an example and answers. Returns where it has written: addresses, and lengths in bytes.

    Args:
        server: forks it, into the PID namespace of this process, as its child.
        example: of its runtime.
        patience: seconds that each answer may take.

    Raises:
        OSError, EOFError, Nonsense, PortGone: it does not.
    """
    orders = Orders(server, patience)
    orders.tie()
    pid, ends = forked(orders, Orders.fork)
    try:
        _qmp, ports = go_on(ends, patience)
        try:
            guest = Guest(ports[CONTROL], ports[LINKS[0]], patience)
            wake(guest.control, None)
            live(guest, example)
            return [*_owned(pid)]
        finally:
            for descriptor in ports.values():
                os.close(descriptor)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _owned(pid: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges of memory that a process shares with no other, and with no file."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pages:
        for line in maps:
            place, kind = line.split()[:2]
            begin, end = (int(each, 16) for each in place.split("-"))
            if kind.startswith("rw") and kind.endswith("p"):
                pages.seek(begin // _PAGE * _ENTRY.size)
                yield from _runs(begin, pages.read((end - begin) // _PAGE * _ENTRY.size))


def _runs(begin: int, entries: bytes) -> Iterator[tuple[int, int]]:
    first = None
    for number, (entry,) in enumerate((*_ENTRY.iter_unpack(entries), (0,))):
        owned = entry & _PRESENT and entry & _EXCLUSIVE and not entry & _OF_A_FILE
        if owned and first is None:
            first = number
        elif not owned and first is not None:
            yield begin + first * _PAGE, (number - first) * _PAGE
            first = None
