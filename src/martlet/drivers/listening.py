"""Servers that were waited for in vain: where they listen instead, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from martlet.drivers.driver import LoadFailed

_LISTENS = "0A"


def not_served(what: str, deadline: float, listening: Sequence[int]) -> LoadFailed:
    """Returns what is said of a server that did not listen in time.

    Args:
        what: what has the server, for people: ``image``, ``program``.
        deadline: seconds that it had.
        listening: the ports that it listens on instead.
    """
    instead = f", but it listens on {', '.join(map(str, listening))}" if listening else ""
    return LoadFailed(
        "Timeout",
        f"the {what} does not serve: nothing listened on the port that $PORT names within {deadline:g} s{instead}. Let "
        "its server listen on $PORT, or set PORT, among the variables of the function, to the port that it listens on",
    )


def ports_of(pid: int) -> list[int]:
    """Returns the TCP ports that processes in the network of this one listen on; none where it is this machine's."""
    ports: set[int] = set()
    with suppress(OSError, ValueError, IndexError):  # it has ended, say
        if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            return []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _LISTENS:
                    ports.add(int(local.rpartition(":")[2], 16))
    return sorted(ports)
