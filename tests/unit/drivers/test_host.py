"""A host that gives less: what is said, what `strict` refuses, and what `relaxed` still does."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from martlet.drivers.identities import FIRST
from tests.driver_rigs import LANE
from tests.unprivileged import USER, stage

LANE_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from martlet.drivers.driver import DriverError
from tests.processes import status_of
from tests.driver_rigs import ask, process_rig

LOOK = '''
import os
def lists(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
def refusal(path):
    try:
        os.listdir(path)
    except OSError as error:
        return type(error).__name__
def handle(request):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "user": os.getuid(),
        "capabilities": int(status["CapEff"], 16),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "filters": status["Seccomp_filters"].strip(),
        "here": os.getcwd(),
        "lists": [path for path in ("/usr", "/tmp", "/var", "/dev") if lists(path)],
        "others": refusal(request.get_json()),
    }
'''

async def main(folder, isolation):
    os.chown(folder, os.geteuid(), os.getegid())
    folder.chmod(0o700)
    try:
        async with process_rig(folder, int(sys.argv[1]), isolation=isolation) as rig:
            handle = await rig.instance("look", source=LOOK)
            seen = json.loads(await ask(handle, str(rig.packages)))
            stats = await rig.driver.stats(handle)
            user = int(status_of(handle.pid)["Uid"].split()[0])
            broken = [each.name for each in rig.driver.probe() if each.broken]
            await rig.driver.stop(handle, 10)
            left = [str(path) for path in rig.run.glob("cell-*")]
            said = {"seen": seen, "user": user, "counted": stats is not None, "broken": broken, "left": left}
            print(json.dumps(said))
    except DriverError as error:
        print(json.dumps({"refused": str(error)}))

asyncio.run(main(Path(sys.argv[2]), sys.argv[3]))
"""
pytestmark = pytest.mark.root


@pytest.fixture
def lane() -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs a lane on a stage, and returns what it says about an instance: ``lane("strict", lent=False)``."""
    with ExitStack() as stack:

        def run(isolation: str, **options: bool) -> dict[str, Any]:
            place = stack.enter_context(stage(**options))
            program = [sys.executable, "-c", LANE_PROGRAM, str(LANE), place.folder, isolation]
            done = subprocess.run(
                place.command(*program),
                env=place.environment(),
                stdout=subprocess.PIPE,
                timeout=60,
                check=True,
            )
            return json.loads(done.stdout.splitlines()[-1])

        yield run


def test_root_that_may_not_make_namespaces_makes_a_user_namespace_first(lane):
    said = lane("strict", root=True)

    assert said["broken"] == []
    assert said["seen"]["here"] == "/function"
    assert said["user"] == said["seen"]["user"] >= FIRST
    assert said["seen"]["capabilities"] == 0


def test_strict_refuses_a_host_without_namespaces_and_says_what_to_do(lane):
    refused = lane("strict", root=True, user_namespaces=False)["refused"]

    assert "files, processes, /proc, shared memory, host name, network: missing" in refused
    assert "sysctl user.max_user_namespaces=" in refused


def test_root_gives_functions_users_of_their_own_even_without_namespaces(lane):
    said = lane("relaxed", root=True, user_namespaces=False)

    assert {"files", "processes", "/proc", "shared memory", "host name"} <= set(said["broken"])
    assert said["user"] == said["seen"]["user"] >= FIRST
    assert said["seen"]["no_new_privileges"] == "1"
    assert said["seen"]["filters"] == "2"  # what holds before there is code, and the rest
    assert said["seen"]["lists"] == ["/usr", "/tmp"]
    assert said["seen"]["capabilities"] == 0
    assert said["seen"]["others"] == "PermissionError"
    assert said["counted"]
    assert said["left"] == []


def test_strict_refuses_one_user_for_all_and_says_what_to_do(lane):
    refused = lane("strict", lent=False)["refused"]

    assert "user: weaker" in refused
    assert "/etc/subuid lends nobody no ids" in refused
    assert "add a line to /etc/subuid" in refused
    assert "nobody:FIRST:65536" in refused
    assert "files" not in refused


def test_relaxed_confines_functions_that_are_one_user_to_the_host(lane):
    said = lane("relaxed", lent=False)

    assert said["broken"] == ["user"]
    assert said["user"] == USER
    assert said["seen"]["user"] >= FIRST
    assert said["seen"]["here"] == "/function"
    assert said["seen"]["capabilities"] == 0
    assert said["counted"]
    assert said["left"] == []


def test_strict_refuses_to_run_without_limits(lane):
    refused = lane("strict", limits=False)["refused"]

    assert "limits: missing" in refused
    assert "systemd-run --user --scope -p Delegate=yes" in refused


@pytest.mark.parametrize("isolation", ["strict", "relaxed"])
def test_where_proc_is_covered_strict_refuses_and_relaxed_does_without_a_sandbox(lane, isolation):
    said = lane(isolation, hidden_proc=True)

    if isolation == "strict":
        assert "/proc: missing" in said["refused"]
        assert "(here: /proc/interrupts)" in said["refused"]
        assert "unmask=ALL" in said["refused"]
    else:
        assert {"files", "/proc"} <= set(said["broken"])
        assert said["seen"]["lists"] == ["/usr", "/tmp"]
        assert said["counted"]


def test_relaxed_runs_with_nothing_but_the_user_it_has(lane):
    said = lane("relaxed", user_namespaces=False, limits=False)

    assert {"limits", "user", "files"} <= set(said["broken"])
    assert said["user"] == said["seen"]["user"] == USER
    assert said["seen"]["no_new_privileges"] == "1"
    assert said["seen"]["filters"] == "2"  # what holds before there is code, and the rest
    assert said["seen"]["lists"] == ["/usr", "/tmp"]
    assert said["seen"]["capabilities"] == 0
    assert not said["counted"]
    assert said["left"] == []
