"""What functions of the process driver reach by network: themselves, or what the host reaches."""

import errno
import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers.driver import DriverError, Handle
from martlet.model import Network
from martlet.sandbox import landlock
from tests.conftest import require
from tests.driver_rigs import Rig, ask, process_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root]

REACH = """
import errno, os, socket, threading

def reach(family, address):
    with socket.socket(family) as client:
        client.settimeout(20)
        return client.connect_ex(address)

def talk_to_oneself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())
        threading.Thread(target=answer).start()
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"hello")
            return client.recv(100).decode()

def handle(request):
    return {"value": eval(request.get_json())}
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path_factory.mktemp("rig"), allow_host_network=True) as rig:
        yield rig


@pytest.fixture
def port() -> Iterator[int]:
    """A service on the loopback of the host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def abstract_name() -> Iterator[str]:
    """A service on an abstract unix socket of the host."""
    name = f"\0martlet-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        yield name


async def instance(rig: Rig, network: Network) -> Handle:
    return await rig.instance("reach", source=REACH, network=network)


async def inside(handle: Handle, expression: str) -> Any:
    """What an expression is worth inside of the sandbox."""
    return json.loads(await ask(handle, expression))["value"]


async def test_without_a_network_it_still_has_a_loopback_of_its_own(rig: Rig):
    handle = await instance(rig, Network.NONE)

    assert await inside(handle, "talk_to_oneself()") == "HELLO"
    assert await inside(handle, "[name for _, name in socket.if_nameindex()]") == ["lo"]


async def test_without_a_network_it_reaches_no_other_machine(rig: Rig):
    handle = await instance(rig, Network.NONE)

    refused = await inside(handle, "reach(socket.AF_INET, ('203.0.113.1', 80))")

    assert refused == errno.ENETUNREACH


async def test_without_a_network_it_does_not_reach_services_of_the_host(
    rig: Rig, port: int, abstract_name: str
):
    handle = await instance(rig, Network.NONE)

    for family, address in (("AF_INET", ("127.0.0.1", port)), ("AF_UNIX", abstract_name)):
        refused = await inside(handle, f"reach(socket.{family}, {address!r})")
        assert refused == errno.ECONNREFUSED


async def test_in_the_network_of_the_host_it_reaches_what_the_host_reaches(rig: Rig, port: int):
    handle = await instance(rig, Network.HOST)

    assert await inside(handle, f"reach(socket.AF_INET, ('127.0.0.1', {port}))") == 0


async def test_in_the_network_of_the_host_it_reaches_no_abstract_socket_of_the_host(
    rig: Rig, abstract_name: str
):
    require(landlock.version() >= 6, "Landlock 6")
    handle = await instance(rig, Network.HOST)

    assert await inside(handle, f"reach(socket.AF_UNIX, {abstract_name!r})") == errno.EPERM


async def test_nobody_gets_the_network_of_the_host_where_it_is_not_allowed(tmp_path: Path):
    async with process_rig(tmp_path) as rig:
        with pytest.raises(DriverError, match=r"system\.allow_host_network is off"):
            await rig.start(Network.HOST)
