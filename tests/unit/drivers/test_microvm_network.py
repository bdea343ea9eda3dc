"""What a microVM reaches by network, in a machine of the test; `test_guest_link` has what that is made of."""

import errno
import json
import os
import shutil
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers import firewall
from martlet.drivers.driver import Handle
from martlet.drivers.egress import Egress
from martlet.drivers.resolvers import Resolvers
from martlet.model import Network
from tests.conftest import require
from tests.driver_rigs import Rig, ask, eventually, microvm_rig, prepare_microvms
from tests.namespaces import MACHINE, METADATA, OTHER, REMOTE, machine_in_the_world

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.engine, pytest.mark.timeout(900)]

SUBNET = IPv4Network("198.18.0.0/20")
REACHES = """
import fcntl, socket, struct
def reach(address):
    with socket.socket() as client:
        client.settimeout(20)
        return client.connect_ex((address, 80)) or client.recv(100).decode()
def handle(request):
    looks = {"links": sorted(name for _, name in socket.if_nameindex())}
    if "eth0" in looks["links"]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            looks["hardware"] = fcntl.ioctl(own, 0x8927, struct.pack("40s", b"eth0"))[18:24].hex(":")
            own.connect(("203.0.113.1", 9))
            looks["address"] = own.getsockname()[0]
        looks["resolvers"] = open("/etc/resolv.conf").read()
    return looks | {"reached": [reach(address) for address in request.get_json()]}
"""
FEW, MANY = 2, 50
"""How many machines with a way out are compared, and how many with ``--every-rung``."""
REFUSED, UNREACHABLE = errno.ECONNREFUSED, errno.ENETUNREACH


async def looks(handle: Handle, *addresses: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await ask(handle, addresses))
    return found


async def instance(rig: Rig, network: Network, **config: Any) -> Handle:
    return await rig.instance("reaches", source=REACHES, network=network, **config)


async def test_a_machine_has_of_the_network_what_its_function_is_given(
    short_path: Path, request: pytest.FixtureRequest
):
    number = MANY if request.config.getoption("every_rung") else FEW
    require(shutil.which("ip"), "ip")
    require(firewall.find(), "nft")
    prepare_microvms(linked=True)  # while there is a mirror of packages within reach
    with machine_in_the_world() as machine:
        async with microvm_rig(short_path, egress=Egress(short_path / "run", SUBNET)) as rig:
            free = await instance(rig, Network.EGRESS)
            narrow = await instance(rig, Network.EGRESS, egress_to=[f"{OTHER}:80"])
            without = await instance(rig, Network.NONE)

            seen = await looks(free, REMOTE, MACHINE, METADATA)
            assert seen["links"] == ["eth0", "lo"]
            assert seen["reached"] == [MACHINE, REFUSED, REFUSED]
            assert IPv4Address(seen["address"]) in SUBNET
            assert seen["resolvers"] == Resolvers.find().text

            held = await looks(narrow, OTHER, REMOTE)
            assert held["reached"] == [MACHINE, REFUSED]
            others = [await instance(rig, Network.EGRESS) for _ in range(number - 2)]
            living = [seen, held, *[await looks(other) for other in others]]
            for own in ("address", "hardware"):
                assert len({each[own] for each in living}) == number

            alone = await looks(without, REMOTE)
            assert (alone["links"], alone["reached"]) == (["lo"], [UNREACHABLE])

            for handle in (free, narrow, *others):
                await rig.driver.destroy(handle)
            await eventually(lambda: not machine.links("m"), "links go with their machines")
        assert machine.run("nft", "list", "tables") == ""
        assert not os.path.exists(without.socket)
