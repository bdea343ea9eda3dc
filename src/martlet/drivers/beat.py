"""Turns on a core for those who wait there while somebody computes on it.

A kernel that divides a core by what each has had (EEVDF, since Linux 6.6) lets whoever wakes wait if it has just had a
little more than its share, be it microseconds. It looks again at its next tick, which is up to 4 ms later, or when
somebody wakes who has had nothing. So while an instance computes, a process that does nothing else wakes on its core
again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

from martlet.sandbox.cgroups import Group

PERIOD = 0.0005
"""Seconds between two of its wake-ups. They take a hundredth of a core."""
LINGER = 10.0
"""Seconds for which it goes on: whoever computes and is ended has a successor soon, and to start takes longer."""
_PROGRAM = f"""
import os, select, sys
for door in map(int, sys.argv[1:]):
    os.write(door, b"0")
    os.close(door)
while not select.select([0], [], [], {PERIOD})[0]:
    pass
"""


class Beat:
    """See the module. Its process ends with the one that has it.

    Args:
        group: where it is, beside those who compute: there it is not counted among those who wait.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping: asyncio.TimerHandle | None = None

    @staticmethod
    def of_use() -> bool:
        """Whether this process, and what it starts, is kept on one core: elsewhere somebody can take another."""
        return len(os.sched_getaffinity(0)) == 1

    def go_on(self) -> None:
        """Begins, or goes on, until `stop`. A machine on which it cannot be started has none."""
        if self._stopping is not None:
            self._stopping.cancel()
            self._stopping = None
        if not self.begun:
            self._end()
            with contextlib.suppress(OSError):
                self._start()

    @property
    def begun(self) -> bool:
        """Whether it has a process, and a group."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends in a while."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().call_later(LINGER, self._stop)

    def close(self) -> None:
        """Ends its process, and removes its group."""
        if self._stopping is not None:
            self._stopping.cancel()
        self._end()

    def _stop(self) -> None:
        self._stopping = None
        self._end()

    def _start(self) -> None:
        self._group.create()
        doors = self._group.open_doors()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", _PROGRAM, *map(str, doors)],
                stdin=subprocess.PIPE,
                bufsize=0,
                pass_fds=doors,
                start_new_session=True,
            )
        finally:
            for door in doors:
                os.close(door)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._group.remove()
