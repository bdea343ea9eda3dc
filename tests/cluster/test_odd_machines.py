"""A machine that is not as it should be: its clock is wrong, or its disk is full."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import PORT, Machine, Machines
from tests.cluster.traffic import COUNTED, Later, Traffic, listed, shared, told
from tests.conftest import require
from tests.system.conftest import until

pytestmark = [pytest.mark.rare, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

CLOCK = Path(__file__).parents[1] / "programs/clock.c"
HOUR = 3600
DISK = "96m"


@contextmanager
def restarted(machine: Machine, **environment: str) -> Iterator[None]:
    """Lets a machine run with other variables; afterwards it runs as before."""
    before = machine.environment
    assert before is not None
    machine.stop()
    machine.environment = {**before, **environment}
    try:
        machine.launch()
        yield
    finally:
        machine.stop()
        machine.environment = before
        machine.launch()


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_a_machine_whose_clock_is_wrong_is_one_like_the_others(
    machines: Machines, hours: int, short_path: Path
) -> None:
    # No namespace gives a machine another time of day: its processes are made to believe it.
    require(shutil.which("cc"), "a C compiler, for a clock that is wrong")
    odd, function = machines.third, f"clock{hours}".replace("-", "behind")
    library = short_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, CLOCK], check=True)
    clock = {"LD_PRELOAD": str(library), "CLOCK_OFF_BY": str(hours * HOUR)}
    with restarted(odd, **clock):
        listed(machines)
        machines.first.deploy(function, COUNTED)
        key = machines.first.admin.post(
            "/keys", json={"name": "caller", "scopes": ["invoke"], "expires": time.time() + 3 * HOUR}
        )
        assert key.status_code == 201, key.text
        later = Later(machines.all, function)
        with Traffic(machines.all, function, clients=1) as traffic:
            began = time.monotonic()
            later.ask(6)
            states = later.ended()
            assert odd.client_for(key.json()["secret"]).post(f"/invoke/{function}").status_code == 200
            time.sleep(12)  # longer than a lease
            assert len(machines.first.nodes()) == 3
            traffic.goes_on()
        node = machines.first.nodes()[f"{odd.address}:{PORT}"]
        assert abs(node["started"] - time.time() - hours * HOUR) < 300, "its clock is not wrong"
        token = machines.first.martlet("cluster", "token").strip()
        odd.martlet("cluster", "join", machines.first.url, token)
    listed(machines)  # with the certificate that it got meanwhile
    until(lambda: odd.invoke(function).status_code == 200, why="it does not serve")
    told(f"a clock {hours:+d} h off", machines, traffic, began, later=dict(states))
    assert traffic.lost == 0
    assert states == {"succeeded": 6}


@contextmanager
def on_small_disk(machine: Machine) -> Iterator[None]:
    """Lets a machine have its data on a disk of its own, which is `DISK` large."""
    machine.stop()
    aside = machine.data.with_name("aside")
    machine.data.rename(aside)
    machine.data.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "martlet-test", machine.data], check=True
    )
    try:
        shutil.copytree(aside, machine.data, symlinks=True, dirs_exist_ok=True)
        machine.launch()
        yield
        machine.stop()
    finally:
        subprocess.run(["umount", "--lazy", machine.data], check=True)
        machine.data.rmdir()
        aside.rename(machine.data)
    machine.launch()


def fill(file: Path) -> None:
    """Writes until nothing more can be written."""
    with file.open("wb", buffering=0) as full:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    full.write(b"\0" * size)
            except OSError:
                continue
    assert os.statvfs(file.parent).f_bavail == 0


def test_a_node_whose_disk_is_full_runs_what_it_has_and_leaves_the_rest_to_others(machines: Machines) -> None:
    full, other = machines.third, machines.second
    with on_small_disk(full):
        listed(machines)
        with machines.cut_off(other):
            until(lambda: len(machines.first.nodes()) == 2, why="the other is still listed")
            machines.first.deploy("aboard", COUNTED)  # so that it is here
        listed(machines)
        filler = full.data / "filler"
        with Traffic([machines.first, full], "aboard", clients=1) as traffic:
            began = time.monotonic()
            fill(filler)
            for name in ("ashore-1", "ashore-2", "ashore-3"):  # at least one of them is at home there
                machines.first.deploy(name, f"{COUNTED}# {name}")
                for machine in machines.all:
                    assert machine.invoke(name).status_code == 200
            traffic.goes_on()
            os.kill(full.children()["lane-0"], 9)
            until(lambda: full.invoke("aboard").status_code == 200, why="it does not start anew")
            until(lambda: machines.first.invoke("aboard").status_code == 200)
            shared(machines, "aboard")  # or its calls would be refused until the other is off the list
            filler.unlink()
            freed = time.monotonic()
            with machines.cut_off(other):
                until(lambda: full.invoke("ashore-1").status_code == 200, why="it does not fetch")
            back = time.monotonic() - freed
        listed(machines)
        lines = full.client.get("/functions/aboard").status_code
        assert lines == 200
    listed(machines)
    told("a full disk", machines, traffic, began, fetched_after=back)
    assert set(traffic.codes) <= {"function_crashed", "broken off"}
    assert traffic.lost <= 4 * traffic.clients  # while its lane was killed its own clients found nobody
