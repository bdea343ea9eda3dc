"""Where no machine can be forked from, none is, and nothing is left of what was tried."""

import subprocess
import sys
from pathlib import Path

import pytest

from martlet.microvm.qemu_machine import CHANNELS, QMP

SECONDS = 30.0
ENDS = "raise SystemExit(3)"
GREETS = f"""
import os, time
answers = b'{{"QMP": {{}}}}\\n' + 4 * b'{{"return": {{}}}}\\n' + b'{{"event": "RESUME"}}\\n'
os.write({QMP}, answers)
os.write({CHANNELS["control"]}, %r)
time.sleep({SECONDS})
"""
SILENT, LOST = b"", b'{"event": "exited", "code": 1}\n'
ZYGOTE = """
import os, sys
from martlet.microvm import fork_server
fork_server._SECONDS = 1.0
with open(sys.argv[1]) as state:
    print(fork_server.make([sys.executable, "-I", "-c", sys.argv[2]], {}, state.fileno()))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child")
"""


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (ENDS, "QEMU has ended"),
        (GREETS % SILENT, "the guest does not answer"),
        (GREETS % LOST, "the guest cannot rehearse"),
    ],
    ids=["it ends", "its guest is silent", "its cell has ended"],
)
@pytest.mark.root
def test_a_monitor_that_is_of_no_use_is_ended_and_said(program: str, why: str, tmp_path: Path):
    state = tmp_path / "state"
    state.touch()

    tried = subprocess.run(
        [sys.executable, "-c", ZYGOTE, state, program], capture_output=True, text=True, timeout=SECONDS
    )

    assert tried.stdout.split("\n") == ["None", "no child", ""], tried.stderr
    assert why in tried.stderr
