"""What the kernel says of the memory of this process, mapping by mapping (proc_pid_smaps(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+ \d+)")
_NO_FILE = "00:00 0"


class Mapping(NamedTuple):
    """One of them.

    Attributes:
        begin: its first address.
        end: the address behind its last.
        mode: what may be done there, as ``maps`` has it: ``r-xp``.
        file: device and inode of what it shows.
        resident: bytes that this process has tables of.
        copied: bytes that are its own, or were copied before it was forked.
        flags: the kernel's, two letters each.
    """

    begin: int
    end: int
    mode: str
    file: str
    resident: int
    copied: int
    flags: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin

    @property
    def is_private_of_a_file(self) -> bool:
        """Whether it shows a file, and whoever writes to it has a copy of his own."""
        return self.mode[3] == "p" and self.file != _NO_FILE


def read() -> Iterator[Mapping]:
    """Yields them by address. Raises OSError."""
    with open("/proc/self/smaps") as lines:
        head, known = None, {"Rss": 0, "Anonymous": 0}
        for line in lines:
            if found := _HEAD.match(line):
                head = found
            elif head is not None:
                name, _, rest = line.partition(":")
                if name in known:
                    known[name] = int(rest.split()[0]) * 1024
                elif name == "VmFlags":
                    begin, end, mode, file = head.groups()
                    flags = frozenset(rest.split())
                    yield Mapping(
                        int(begin, 16), int(end, 16), mode, file, known["Rss"], known["Anonymous"], flags
                    )
