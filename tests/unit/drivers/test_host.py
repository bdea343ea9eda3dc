"""A host that gives less: what is said, what `strict` refuses, and what `relaxed` still does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.driver_rigs import LANE

LANE_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from martlet.drivers.driver import DriverError
from tests.driver_rigs import ask, process_rig

LOOK = '''
import os
def lists(path):
    try:
        return bool(os.listdir(path))
    except PermissionError:
        return False
def handle(request):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "user": os.getuid(),
        "capabilities": int(status["CapEff"], 16),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "filters": status["Seccomp_filters"].strip(),
        "here": os.getcwd(),
        "lists": [path for path in ("/usr", "/tmp", "/var", "/dev") if lists(path)],
    }
'''

async def main(folder, isolation):
    try:
        async with process_rig(folder, int(sys.argv[2]), isolation=isolation) as rig:
            handle = await rig.instance("look", source=LOOK)
            seen = json.loads(await ask(handle))
            stats = await rig.driver.stats(handle)
            missing = [each.feature for each in rig.driver.probe()]
            await rig.driver.stop(handle, 10)
            left = [str(path) for path in rig.run.glob("cell-*")]
            print(json.dumps({"seen": seen, "counted": stats is not None, "missing": missing, "left": left}))
    except DriverError as error:
        print(json.dumps({"refused": str(error)}))

asyncio.run(main(Path(sys.argv[3]), sys.argv[4]))
"""
pytestmark = pytest.mark.root

WITHOUT_NAMESPACES = ["setpriv", "--bounding-set", "-sys_admin"]
# The Python of this installation may lie where only root can read: that much is left to the other user.
WITHOUT_ROOT = [
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path everybody may walk, for the user without rights."""
    path = Path(tempfile.mkdtemp())
    os.chmod(path, 0o755)
    os.chown(path, 65534, 65534)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def lane(folder: Path):
    """Runs a lane with fewer rights, and returns what it says about an instance."""
    require(shutil.which("setpriv"), "setpriv")

    def run(rights: list[str], isolation: str) -> dict:
        repository = Path(__file__).parents[3]
        program = [sys.executable, "-c", LANE_PROGRAM, repository, str(LANE), folder, isolation]
        done = subprocess.run([*rights, *program], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    return run


def test_strict_refuses_a_host_without_namespaces_and_says_what_to_do(lane):
    refused = lane(WITHOUT_NAMESPACES, "strict")["refused"]

    assert "mount namespace: functions see the files of this machine" in refused
    assert "CAP_SYS_ADMIN" in refused


def test_relaxed_does_without_namespaces_and_keeps_the_limits(lane, folder: Path):
    said = lane(WITHOUT_NAMESPACES, "relaxed")

    assert {"mount namespace", "PID namespace", "IPC namespace", "UTS namespace"} <= set(said["missing"])
    assert said["seen"]["no_new_privileges"] == "1"
    assert said["seen"]["filters"] == "1"
    assert said["seen"]["lists"] == ["/usr", "/tmp"]
    assert said["seen"]["capabilities"] == 0
    assert said["seen"]["here"].startswith(str(folder / "packages"))
    assert said["counted"]
    assert said["left"] == []


def test_strict_refuses_to_run_without_root(lane):
    refused = lane(WITHOUT_ROOT, "strict")["refused"]

    assert "run Martlet as root" in refused
    assert "cgroups: " in refused


def test_relaxed_runs_without_root_as_the_user_it_has(lane):
    said = lane(WITHOUT_ROOT, "relaxed")

    assert "cgroups" in said["missing"]
    assert said["seen"]["user"] == 65534
    assert said["seen"]["no_new_privileges"] == "1"
    assert said["seen"]["filters"] == "1"
    assert said["seen"]["lists"] == ["/usr", "/tmp"]
    assert said["seen"]["capabilities"] == 0
    assert not said["counted"]
    assert said["left"] == []
