"""The program that containers start as, which others then enter."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from martlet.sandbox import pause
from tests.conftest import require
from tests.system.conftest import until

NOBODY = 65534


@pytest.fixture
def waiting():
    text = pause.program()
    require(text, "machine code for this machine")
    program = os.memfd_create("pause", 0)
    os.write(program, text)
    here = f"/proc/{os.getpid()}/fd/{program}"
    with open(os.open(here, os.O_RDONLY)) as readable:  # nobody executes what is open for writing
        os.close(program)
        user = NOBODY if os.geteuid() == 0 else None
        with subprocess.Popen(
            [f"/proc/self/fd/{readable.fileno()}"], pass_fds=[readable.fileno()], user=user
        ) as process:
            yield process
            process.kill()


def status(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def ignored(process):
    return int(status(process)["SigIgn"], 16) >> (signal.SIGCHLD - 1) & 1


def test_it_waits_and_lets_orphans_go(waiting):
    until(lambda: ignored(waiting), why="it does not ignore the end of children")
    until(lambda: status(waiting)["State"].startswith("S"), why="it does not sleep")
    assert waiting.poll() is None


def test_it_goes_on_after_a_signal(waiting):
    until(lambda: ignored(waiting), why="it does not ignore the end of children")
    waiting.send_signal(signal.SIGSTOP)
    until(lambda: status(waiting)["State"].startswith("T"), why="it was not stopped")
    waiting.send_signal(signal.SIGCONT)
    until(lambda: status(waiting)["State"].startswith("S"), why="it does not wait any more")


@pytest.mark.root
def test_its_memory_is_not_its_users(waiting):
    until(lambda: ignored(waiting), why="it does not ignore the end of children")
    assert Path(f"/proc/{waiting.pid}/mem").stat().st_uid == 0
