"""``kill -9`` of a process of a machine."""

import os
import random
import signal
from contextlib import suppress

from tests.cluster.conftest import Machine
from tests.system.conftest import until
from tests.system.test_kills import descendants, members


def kill_one(machine: Machine, kind: str) -> None:
    """Kills a process of a kind; where that ends the platform, starts it again."""
    assert machine.process is not None
    pids = until(
        lambda: members(machine, descendants(machine.process.pid))[kind], why=f"there is no {kind} to kill"
    )
    with suppress(ProcessLookupError):
        os.kill(random.choice(pids), signal.SIGKILL)
    if kind == "supervisor":
        machine.process.wait()
        machine.launch()
