"""What a guest behind a tap reaches, is refused and leaves: the guest is a namespace whose frames a thread carries."""

import errno
import fcntl
import os
import select
import shutil
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from martlet.destination import parse_destination
from martlet.drivers import firewall
from martlet.drivers.egress import Egress
from martlet.sandbox import guest_link
from tests.conftest import require
from tests.driver_rigs import eventually
from tests.namespaces import (
    MACHINE,
    METADATA,
    OTHER,
    REMOTE,
    Namespace,
    entered,
    machine_in_the_world,
    run_in,
)

pytestmark = [pytest.mark.anyio, pytest.mark.root]

SUBNET = IPv4Network("198.18.0.0/20")


@pytest.fixture
def machine() -> Iterator[Namespace]:
    for program in ("ip", "nft"):
        require(shutil.which(program), program)
    require(os.path.exists("/dev/net/tun"), "/dev/net/tun")
    with machine_in_the_world() as machine:
        yield machine


@pytest.fixture
async def lane(machine: Namespace, tmp_path: Path) -> AsyncIterator[Egress]:
    lane = Egress(tmp_path, SUBNET)
    await lane.open()
    yield lane
    await lane.close()


@dataclass
class Guest:
    """A guest, and the namespace that it is behind."""

    inside: Namespace
    behind: int
    address: IPv4Address

    def reach(self, address: str, port: int = 80) -> str | int:
        """Returns from which address a server has seen it, or the error of the attempt."""
        with self.inside.entered(), socket.socket() as client:
            client.settimeout(20)
            if error := client.connect_ex((address, port)):
                return error
            return client.recv(100).decode()

    def send(self, address: str) -> int:
        """Returns the error that a datagram is answered with."""
        with self.inside.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect((address, 9))
            client.send(b"x")
            try:
                client.recv(1)
            except OSError as error:
                return error.errno or 0
        return 0

    def hardware(self) -> str:
        return self.inside.run("ip", "-o", "link", "show", "eth0").partition("link/ether ")[2].split()[0]


@contextmanager
def guest(behind: int) -> Iterator[Guest]:
    """A guest in the way out of a descriptor, which this closes."""
    inside = Namespace()
    with entered(behind):
        address, tap = guest_link.address_here(), guest_link.attach()
    assert address is not None
    with inside.entered():
        wire = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(wire, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
        guest_link.join(address)
    ending, end = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([tap, wire, ending], [], [])
            if ending in ready:
                return
            for descriptor in ready:
                os.write(wire if descriptor == tap else tap, os.read(descriptor, 65536))

    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        yield Guest(inside, behind, address)
    finally:
        os.write(end, b"x")
        carrier.join()
        for descriptor in (tap, wire, ending, end, behind):
            os.close(descriptor)
        inside.close()


async def test_a_guest_reaches_others_by_the_address_of_the_machine(machine: Namespace, lane: Egress):
    with guest(await lane.make(guest=True)) as it:
        assert it.reach(REMOTE) == MACHINE
        assert it.address in SUBNET


async def test_what_no_function_reaches_no_guest_reaches_either(machine: Namespace, lane: Egress):
    with guest(await lane.make(guest=True)) as it, guest(await lane.make(guest=True)) as other:
        refused = [MACHINE, METADATA, str(SUBNET[1]), str(other.address), str(guest_link.GATEWAY)]
        assert [it.reach(address) for address in refused] == [errno.ECONNREFUSED] * len(refused)
        assert it.send(METADATA) in (errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED)
        assert other.reach(REMOTE) == MACHINE


async def test_a_list_of_destinations_holds_for_guests(machine: Namespace, lane: Egress):
    behind = await lane.make(guest=True)
    await lane.narrow(behind, [parse_destination(f"{OTHER}:80")])

    with guest(behind) as it:
        assert it.reach(OTHER) == MACHINE
        assert it.reach(REMOTE) == errno.ECONNREFUSED
        assert it.send(REMOTE) in (errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED)


async def test_the_address_of_another_guest_is_no_disguise(machine: Namespace, lane: Egress):
    with guest(await lane.make(guest=True)) as it, guest(await lane.make(guest=True)) as other:
        it.inside.run("ip", "address", "add", f"{other.address}/32", "dev", "eth0")
        way = ("default", "via", str(guest_link.GATEWAY), "dev", "eth0", "onlink", "src", str(other.address))
        it.inside.run("ip", "route", "replace", *way)
        with it.inside.entered(), socket.socket() as client:
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.connect((REMOTE, 80))
        assert other.reach(REMOTE) == MACHINE


async def test_every_guest_has_addresses_of_its_own_that_no_other_guest_reaches(
    machine: Namespace, lane: Egress
):
    with ExitStack() as stack:
        guests = [stack.enter_context(guest(await lane.make(guest=True))) for _ in range(3)]

        assert len({each.address for each in guests}) == len({each.hardware() for each in guests}) == 3
        guests[0].inside.serve(str(guests[0].address), 8080)
        assert guests[1].reach(str(guests[0].address), 8080) == errno.ECONNREFUSED


async def test_nothing_is_left_of_a_way_out_that_nobody_holds(machine: Namespace, lane: Egress):
    descriptors = len(os.listdir("/proc/self/fd"))
    with guest(await lane.make(guest=True)) as it:
        assert "tap0" in run_in(it.behind, "ip", "link")
        with entered(it.behind), pytest.raises(OSError, match="busy"):
            guest_link.attach()
        assert len(machine.links("m")) == 1

    await eventually(lambda: not machine.links("m"), "the link goes with its namespace")
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the thread's own


async def test_processes_have_no_tap(machine: Namespace, lane: Egress):
    behind = await lane.make()
    with entered(behind):
        assert guest_link.address_here() is None
    assert "tap0" not in run_in(behind, "ip", "link")
    os.close(behind)
    assert firewall.tables() != []
