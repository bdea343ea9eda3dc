"""What is a microVM's own, besides what every driver holds to (`tests/contract`)."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers import microvm
from martlet.drivers.driver import DriverError, LoadFailed, State
from martlet.model import Network
from tests.driver_rigs import Rig, ask, microvm_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.engine, pytest.mark.timeout(900)]

LOOKS = """
import os, socket, extra
def handle(request):
    status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    try:
        open("/function/more", "w")
        written = None
    except OSError as error:
        written = error.strerror
    return {
        "extra": extra.VALUE, "files": os.listdir("/function"), "written": written, "uid": os.getuid(),
        "capabilities": status["CapEff"], "filtered": status["Seccomp"], "host": socket.gethostname(),
        "networks": [name for _, name in socket.if_nameindex()], "network": len(request.body),
    }
"""
MEETS = """
import threading
together = threading.Barrier(4, timeout=60)
def handle(request):
    together.wait()
    return "met"
"""


@pytest.fixture
async def rig(short_path: Path) -> AsyncIterator[Rig]:
    async with microvm_rig(short_path) as rig:
        yield rig


async def look(rig: Rig, size: int) -> dict[str, Any]:
    dependencies = rig.package(extra="VALUE = 42")
    instance = await rig.instance("looks", source=LOOKS, dependencies=dependencies)
    answer: dict[str, Any] = json.loads(await ask(instance, "x" * size))
    return answer


async def test_the_cell_is_confined_inside_of_the_machine_too(rig: Rig):
    seen = await look(rig, 1_000_000)

    assert (seen["extra"], seen["files"]) == (42, ["handler.py"])
    assert seen["written"] in ("Permission denied", "Read-only file system")
    assert seen["uid"] != 0
    assert (int(seen["capabilities"], 16), seen["filtered"]) == (0, "2")
    assert (seen["host"], seen["networks"]) == ("looks", ["lo"])
    assert seen["network"] == 1_000_002


async def test_requests_run_at_once_each_over_a_port_of_its_own(rig: Rig):
    instance = await rig.instance("meets", source=MEETS, concurrency=4)

    answers = await asyncio.gather(*(ask(instance) for _ in range(4)))

    assert answers == [b"met"] * 4


async def test_code_that_takes_too_much_memory_to_load_is_told_so_by_the_kernel_of_the_guest(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match="more than its memory limit of 32Mi") as caught:
        await rig.specialise(handle, "hog", source="hoard = bytearray(1 << 27)", memory="32Mi")

    assert caught.value.kind == "OutOfMemory"


async def test_the_network_of_the_host_is_refused(rig: Rig):
    with pytest.raises(DriverError, match="network: none or egress, not host"):
        await rig.driver.start(rig.spec("reaches", Network.HOST))


def test_what_is_missing_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)

    found = microvm.guarantee()

    assert found.state is State.MISSING
    assert "qemu-system-x86_64" in found.why
    assert found.remedy == "apt-get install qemu-system-x86 erofs-utils mmdebstrap apt"
