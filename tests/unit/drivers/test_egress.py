"""Namespaces with a way out, made in a namespace of the test: nothing of the real machine is touched."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from martlet.drivers import egress, firewall
from martlet.drivers.driver import DriverError, State
from martlet.drivers.egress import Egress, guarantee
from martlet.model import Network
from tests.conftest import require
from tests.driver_rigs import eventually, process_rig
from tests.namespaces import Namespace, run_in

pytestmark = [pytest.mark.anyio, pytest.mark.root]

SUBNET = IPv4Network("198.18.0.0/20")


@pytest.fixture
def machine() -> Iterator[Namespace]:
    require(shutil.which("ip"), "ip")
    require(firewall.find(), "nft")
    machine = Namespace()
    machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")  # a new namespace takes after the host
    with machine.entered():
        yield machine
    machine.close()


@pytest.fixture
async def opened(machine: Namespace, tmp_path: Path) -> AsyncIterator[Egress]:
    lane = Egress(tmp_path, SUBNET)
    await lane.open()
    yield lane
    await lane.close()


def tables(machine: Namespace) -> list[str]:
    return machine.run("nft", "list", "tables").split()[2::3]


def address_in(namespace: int) -> str:
    return run_in(namespace, "ip", "-4", "-o", "address", "show", "eth0").split()[3]


async def test_a_machine_that_can_give_it_lacks_nothing_and_is_left_as_it_was(machine: Namespace):
    assert guarantee(SUBNET).state is State.HELD

    assert tables(machine) == []
    assert machine.links("m") == {}
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"


async def test_a_machine_without_the_program_is_told_which_package_it_takes(
    machine: Namespace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(firewall, "PROGRAM", "no-such-program")

    missing = guarantee(SUBNET)

    assert missing.state is State.MISSING
    assert missing.remedy == "install the package nftables"


async def test_nothing_is_changed_before_somebody_needs_it(machine: Namespace, opened: Egress):
    assert tables(machine) == []
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"

    os.close(await opened.make())

    assert len(tables(machine)) == 1
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


async def test_a_namespace_that_nobody_holds_is_gone_with_its_link(machine: Namespace, opened: Egress):
    namespace = await opened.make()
    assert len(machine.links("m")) == 1

    os.close(namespace)

    await eventually(lambda: not machine.links("m"), "the link goes with its namespace")


async def test_one_that_is_asked_for_in_vain_is_not_kept(machine: Namespace, opened: Egress):
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        making = asyncio.create_task(opened.make())
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)

    os.close(await opened.make())

    await eventually(lambda: not machine.links("m"), "the links go")
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the thread's own


async def test_lanes_and_platforms_share_no_address(machine: Namespace, tmp_path: Path):
    lanes = [Egress(tmp_path / "a", SUBNET, 0, 2), Egress(tmp_path / "a", SUBNET, 1, 2)]
    lanes.append(Egress(tmp_path / "another platform", SUBNET, 0, 1))
    namespaces = [await lane.make() for lane in lanes for _ in range(3)]

    addresses = {address_in(namespace) for namespace in namespaces}

    assert len(addresses) == len(namespaces)
    assert all(IPv4Address(address.partition("/")[0]) in SUBNET for address in addresses)
    for namespace in namespaces:
        os.close(namespace)
    for lane in lanes:
        await lane.close()


async def test_a_later_life_renews_its_rules_and_removes_those_of_lanes_that_are_no_more(
    machine: Namespace, tmp_path: Path
):
    for number in (0, 1):
        os.close(await Egress(tmp_path, SUBNET, number, 2).make())  # killed: never closed
    machine.run("nft", "flush", "table", "inet", tables(machine)[0])

    later = Egress(tmp_path, SUBNET, 0, 1)
    await later.open()

    assert len(tables(machine)) == 1
    assert "goto refuse" in machine.run("nft", "list", "ruleset")
    await later.close()
    assert tables(machine) == []


async def test_when_every_address_is_taken_it_says_so(
    machine: Namespace, opened: Egress, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(egress, "_ATTEMPTS", 3)
    opened._size = 3
    namespaces = [await opened.make() for _ in range(3)]

    with pytest.raises(DriverError, match=r"system\.egress_subnet"):
        await opened.make()

    for namespace in namespaces:
        os.close(namespace)


async def test_cells_leave_nothing_behind_and_hold_nothing_they_do_not_need(
    machine: Namespace, tmp_path: Path
):
    async with process_rig(tmp_path, egress=Egress(tmp_path / "run", SUBNET)) as rig:
        await rig.driver.destroy(await rig.instance("echo", network=Network.EGRESS))
        before = len(os.listdir("/proc/self/fd"))

        unused = await rig.start(Network.EGRESS)
        unloadable = await rig.start(Network.EGRESS)
        narrow = await rig.instance("echo", network=Network.EGRESS, egress_to=["192.0.2.1:80"])
        await rig.instance("echo", network=Network.EGRESS)
        with pytest.raises(DriverError):
            await rig.specialise(unloadable, "unloadable", network=Network.EGRESS)
        for handle in (unused, unloadable, narrow):
            await rig.driver.destroy(handle)

        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors are closed")
        await eventually(lambda: len(machine.links("m")) == 1, "links of destroyed cells go")
    await eventually(lambda: not machine.links("m"), "all links go")
    assert tables(machine) == []


async def test_a_lane_without_it_starts_no_cell_with_a_way_out(tmp_path: Path):
    async with process_rig(tmp_path) as rig:
        with pytest.raises(DriverError, match="gives no cell a way out"):
            await rig.start(Network.EGRESS)
        handle = await rig.start()
        with pytest.raises(DriverError, match="no network that could be narrowed"):
            await rig.specialise(handle, "echo", egress_to=["192.0.2.1"])
