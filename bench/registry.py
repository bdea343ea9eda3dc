"""What a thousand nodes and ten thousand functions cost those who keep, and follow, the list of them."""

from __future__ import annotations

import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import free_port, memory_mib, percentile
from bench.platform import Platform, platform
from bench.row import Row, figure
from bench.simulated import function
from martlet.gateway.fleet import Fleet
from martlet.model import Function, FunctionConfig, Revision
from martlet.node.portion import Portion
from martlet.node.withdrawal import Withdrawal
from martlet.storage.etcd.store import EtcdStore
from martlet.storage.registry import Registry, RegistryView
from martlet.store_address import EtcdAddress
from tests.etcd import Cluster

PREFIX = "/registry"
NOBODY = "f" * 12
"""The id of the gateway in this process."""
AT_ONCE = 16
WATCHERS = 20
CHOICES = 200
LOOK, SETTLED_WITHIN = 3, 90
"""Seconds between two looks whether the leader has divided what is in use, and that it may take."""
FEW = 50
"""Divisions within `LOOK` that are only those of loads which change."""
_TICKS = os.sysconf("SC_CLK_TCK")


def registry(seconds: float, nodes: int, functions: int) -> Iterator[Row]:
    """A gateway that leads too, in a cluster of which the other nodes are simulated; each beats every three seconds.

    Args:
        seconds: how long CPU is counted.
        nodes: how many are simulated; each has instances of three functions, and as many functions are in use.
        functions: how many there are.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="martlet-registry-")))
        etcd = Cluster(folder)
        stack.callback(etcd.kill)
        etcd.start()
        address = EtcdAddress.parse(f"etcd://{etcd.endpoints[0]}{PREFIX}")
        yield figure(
            "a machine with the roles gateway and control starts, with nothing in etcd", _start(address), "s"
        )
        rate = asyncio.run(_fill(address, functions))
        yield figure(f"functions written to etcd by {AT_ONCE} writers, with a revision each", rate, "/s")
        file = folder / "simulated.log"
        stack.enter_context(_simulated(etcd.endpoints[0], nodes, file))
        server = {"etcd": [etcd.members[0].pid]}
        alone = _cpu(server, seconds)["etcd"]
        yield figure(f"CPU of etcd, {nodes} nodes that beat, nobody who watches", alone, "%")
        began = time.perf_counter()
        running = stack.enter_context(platform(**_system(address)))
        yield figure("a machine with the roles gateway and control starts", time.perf_counter() - began, "s")
        _settle(running)
        processes = {**server, **_named(running)}
        before = asyncio.run(_revision(address)), time.monotonic()
        used = _cpu(processes, seconds)
        writes = (asyncio.run(_revision(address)) - before[0]) / (time.monotonic() - before[1])
        yield figure(
            f"writes to etcd, {nodes} nodes and {functions} functions, {nodes} of them in use", writes, "/s"
        )
        for name, pids in processes.items():
            yield figure(f"CPU of {name}", used[name], "%")
            yield figure(f"memory of {name}", memory_mib(pids), "MiB")
        with _watching(address, WATCHERS):
            more = (_cpu(server, seconds)["etcd"] - used["etcd"]) / WATCHERS
        yield figure("CPU of etcd for each further machine that watches it", more, "%")
        yield from asyncio.run(_choices(address, nodes))
        forgotten = sum("node_" in line for line in file.read_text().splitlines())
        yield figure("times that a node was forgotten, or could not say how it is", forgotten, "")


def _system(address: EtcdAddress) -> dict[str, object]:
    return {
        "store": f"etcd://{address.endpoints[0]}{address.prefix}",
        "roles": "gateway,control",
        "peer_address": f"127.0.0.1:{free_port()}",
        "lanes": 1,
    }


def _start(address: EtcdAddress) -> float:
    """Returns the seconds until a machine is ready."""
    began = time.perf_counter()
    with platform(**_system(address)):
        return time.perf_counter() - began


async def _fill(address: EtcdAddress, functions: int) -> float:
    """Writes functions; returns how many in a second."""
    numbers = iter(range(functions))

    async def write() -> None:
        store = await EtcdStore.open(address)
        there = Registry(store)
        for number in numbers:
            name = function(number)
            revision = Revision(
                function=name, number=1, config=FunctionConfig(), code=f"{number:064x}", created=1.0
            )
            await there.put_revision(revision)
            await there.put_function(Function(name=name, latest=1, counter=1, created=1.0, updated=1.0))
        await store.close()

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(AT_ONCE)))
    return functions / (time.perf_counter() - began)


@contextmanager
def _simulated(endpoint: str, nodes: int, file: Path) -> Iterator[None]:
    """Keeps nodes in etcd, from when all have joined."""
    command = [sys.executable, "-m", "bench.simulated", endpoint, PREFIX, str(nodes)]
    with (
        file.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "joined\n":
                raise RuntimeError(f"the simulated nodes did not join:\n{file.read_text()[-3000:]}")
            yield
        finally:
            process.kill()


@contextmanager
def _watching(address: EtcdAddress, count: int) -> Iterator[None]:
    """Lets programs watch all keys; they read what comes, and do nothing with it."""
    key, end = address.prefix + "/", address.prefix + "0"
    command = ["etcdctl", "--endpoints", address.endpoints[0], "watch", key, end, "--write-out", "protobuf"]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def _settle(running: Platform) -> None:
    """Waits until the leader has divided what is in use: that is done once."""
    done = -1
    for _ in range(SETTLED_WITHIN // LOOK):
        time.sleep(LOOK)
        before, done = done, running.log().count("instances_divided")
        if done - before < FEW and done:
            return
    raise RuntimeError(f"the leader does not come to an end: {done} divisions")


def _named(running: Platform) -> dict[str, list[int]]:
    """Returns the processes of a machine by what they are."""
    names = {"martlet-control": "the leader (control)", "martlet-lane-0": "the gateway (its one lane)"}
    found = {}
    for pid in running.pids():
        said = Path(f"/proc/{pid}/comm").read_text().strip()
        if said in names:
            found[names[said]] = [pid]
    return found


def _cpu(processes: Mapping[str, list[int]], seconds: float) -> dict[str, float]:
    """Returns the CPU that processes use for a while: percent of a core."""
    before, began = {name: _ticks(pids) for name, pids in processes.items()}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {name: 100 * (_ticks(pids) - before[name]) / _TICKS / took for name, pids in processes.items()}


def _ticks(pids: list[int]) -> int:
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields)


async def _revision(address: EtcdAddress) -> int:
    store = await EtcdStore.open(address)
    try:
        return await store.revision()
    finally:
        await store.close()


async def _choices(address: EtcdAddress, nodes: int) -> list[Row]:
    """Has a view, as a gateway has, in this process; and lets it choose nodes for requests while it changes."""
    store = await EtcdStore.open(address)
    view = RegistryView(store)
    began = time.perf_counter()
    await view.start()
    rows = [figure("all that etcd has is read into memory", time.perf_counter() - began, "s")]
    withdrawal = Withdrawal(view, NOBODY)
    portion = Portion(view, NOBODY, withdrawal)
    fleet = Fleet(view, portion.shares, NOBODY, ssl.create_default_context(), withdrawal)
    for said, numbers in (("in use", range(CHOICES)), ("not in use", range(nodes, nodes + CHOICES))):
        asked = [view.revisions[function(number), 1] for number in numbers if number < len(view.functions)]
        first, again = [], []
        for revision in asked:
            for took in (first, again):
                began = time.thread_time()
                if fleet.choose(revision) is None:
                    raise RuntimeError("no node was chosen")
                took.append((time.thread_time() - began) * 1e3)
        for when, took in (("first after a change", first), ("again", again)):
            for share in (0.5, 0.99):
                what = f"a function {said}: CPU to choose one of {nodes} nodes, {when}, p{share * 100:.0f}"
                rows.append(figure(what, percentile(took, share), "ms"))
    changes = []
    for callback in view.on_nodes:
        for _ in range(20):
            began = time.perf_counter()
            callback()
            changes.append((time.perf_counter() - began) * 1e3)
    rows.append(figure("a gateway is told that a node said something", statistics.median(changes), "ms"))
    fleet.close()
    await view.close()
    await store.close()
    return rows
