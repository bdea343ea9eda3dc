"""What holds also for functions without any sandbox, on a host that gives none."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from martlet.drivers import process
from martlet.sandbox.means import Means, Users
from tests.driver_rigs import Rig, ask, eventually, process_rig, program_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root]

GIVES_ITS_PARENT_A_CHILD = """
import ctypes, os, platform, signal

CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]

def handle(request):
    if ctypes.CDLL(None).syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)
    return "done"
"""


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A driver on a host without namespaces."""
    inspect = process.inspect
    none = Means(confined=False, users=Users.SHARED)
    monkeypatch.setattr(process, "inspect", lambda *host: replace(inspect(*host), means=none))
    async with process_rig(tmp_path, isolation="relaxed") as rig:
        yield rig


async def test_a_child_that_a_function_gives_its_zygote_harms_nobody(rig: Rig):
    neighbour, hostile = (
        await rig.instance("echo"),
        await rig.instance("hostile", source=GIVES_ITS_PARENT_A_CHILD),
    )

    for _ in range(3):
        assert await ask(hostile) == b"done"

    assert await ask(await rig.instance("echo"), "later") == b'"later"'
    assert await ask(neighbour, "still") == b'"still"'
    assert rig.exits == []


async def test_a_program_needs_no_namespaces_and_ends_with_what_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inspect = process.inspect
    none = Means(confined=False, users=Users.SHARED)
    monkeypatch.setattr(process, "inspect", lambda *host: replace(inspect(*host), means=none))
    async with program_rig(tmp_path, isolation="relaxed") as rig:
        handle = await rig.instance("echo")
        assert await ask(handle, 1) == b"1"
        assert handle.pid is not None
        with open(f"/proc/{handle.pid}/task/{handle.pid}/children") as listed:
            (program,) = (int(pid) for pid in listed.read().split())

        os.kill(handle.pid, signal.SIGKILL)

        await eventually(lambda: rig.exits, "the exit is reported")
        await eventually(lambda: not Path(f"/proc/{program}/exe").exists(), "the program has ended")


async def test_a_program_that_is_killed_leaves_no_socket_in_the_scratch_space_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inspect = process.inspect
    none = Means(confined=False, users=Users.SHARED)
    monkeypatch.setattr(process, "inspect", lambda *host: replace(inspect(*host), means=none))
    before = set(Path("/tmp").glob(".martlet-*"))
    async with program_rig(tmp_path, isolation="relaxed", listen="socket") as rig:
        handle = await rig.instance("echo")
        assert await ask(handle, 1) == b"1"
        assert handle.pid is not None

        os.kill(handle.pid, signal.SIGKILL)

        await eventually(lambda: rig.exits, "the exit is reported")
        assert set(Path("/tmp").glob(".martlet-*")) <= before
