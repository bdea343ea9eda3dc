"""What a process of Martlet itself uses."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _START, _RESIDENT = 11, 12, 19, 21
"""Fields of /proc/PID/stat behind the name of the program (see proc(5); there they are 14, 15, 22 and 24)."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """CPU in seconds, memory in bytes, open file descriptors, and the start in seconds since the epoch."""

    cpu_seconds: float
    resident_bytes: int
    open_files: int
    started: float

    @classmethod
    def measure(cls) -> ProcessStats:
        """Returns what this process uses now."""
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START]) / _TICKS
        return cls(
            cpu_seconds=(int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
            resident_bytes=int(fields[_RESIDENT]) * _PAGE,
            open_files=len(os.listdir("/proc/self/fd")) - 1,  # less the one that lists them
            started=time.time() - age,
        )
