"""What functions reach with ``network: egress``, on a machine whose network is made of namespaces of this test."""

import errno
import os
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.namespaces import Namespace, entered
from tests.system.conftest import Platform, until
from tests.system.test_kills import descendants

pytestmark = pytest.mark.root

REMOTE, WAN, LAN_HOST, LAN, METADATA = (
    "198.51.100.7",
    "203.0.113.2",
    "10.20.0.5",
    "10.20.0.1",
    "169.254.169.254",
)
REFUSED = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES}
"""How a destination is refused at once; a packet that is dropped is `errno.ETIMEDOUT`, or EAGAIN."""
CODE = """
import socket, threading

def reach(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(10)
        try:
            client.connect((address, port))
            return client.recv(100).decode()
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return error.errno

def send(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"from a function", (address, port))

def look_up(name):
    return socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0]

def address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("198.51.100.7", 80))
        return client.getsockname()[0]

def listen(port):
    server = socket.create_server(("0.0.0.0", port))
    def greet():
        while True:
            connection, client = server.accept()
            connection.sendall(b"a function")
            connection.close()
    threading.Thread(target=greet, daemon=True).start()

def handle(request):
    return {"value": eval(request.get_json())}
"""


@dataclass
class World:
    """The machine that the platform runs on, and what is around it."""

    machine: Namespace
    internet: Namespace
    lan: Namespace
    clouds: Namespace


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Moves the test, and what it starts, into the machine; the real machine forwards neither before nor after."""
    require(os.geteuid() == 0, "root, to make namespaces")
    for program in ("nft", "ip", "unshare"):
        require(shutil.which(program), program)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with ExitStack() as stack:
        world = World(*(Namespace() for _ in range(4)))
        machine, internet, lan, clouds = world.machine, world.internet, world.lan, world.clouds
        for namespace in (machine, internet, lan, clouds):
            stack.callback(namespace.close)
        machine.link("wan", f"{WAN}/24", internet, "eth", "203.0.113.1/24")
        machine.link("lan", f"{LAN}/24", lan, "eth", f"{LAN_HOST}/24")
        machine.link("cloud", "169.254.0.1/16", clouds, "eth", f"{METADATA}/16")
        machine.run("ip", "-6", "address", "add", "fd99::1/64", "dev", "lan", "nodad")
        machine.run("ip", "route", "add", "default", "via", "203.0.113.1")
        for address in (REMOTE, "100.100.100.200"):
            internet.run("ip", "address", "add", f"{address}/32", "dev", "lo")
            for port in (80, 443):
                internet.serve(address, port)
        for port in (80, 5432):
            lan.serve(LAN_HOST, port)
        clouds.serve(METADATA, 80)
        clouds.resolve(METADATA, REMOTE)
        machine.serve("0.0.0.0", 7000)
        machine.serve("fd99::1", 7000)
        redirect = "table ip test { chain published { type nat hook prerouting priority dstnat; "
        machine.run("nft", redirect + f"tcp dport 8080 dnat to {LAN_HOST}:80; }}; }}")
        stack.enter_context(machine.entered())
        yield world
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding


@pytest.fixture(scope="module")
def platform(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on that machine, whose only resolver has the address of the metadata service."""
    folder = tmp_path_factory.mktemp("egress")
    names = folder / "resolv.conf"
    names.write_text(f"nameserver 127.0.0.53\nnameserver {METADATA}\n")
    platform = Platform(
        folder / "data",
        default_network=None,
        allow_host_network=True,
        min_cells=2,
        disable_container=True,
        disable_microvm=True,
    )
    mount = f'mount --bind {names} /etc/resolv.conf && exec "$@"'
    platform.wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    platform.start()
    yield platform
    platform.close()


@pytest.fixture(scope="module")
def inside(platform: Platform) -> Callable[[str, str], Any]:
    """Says what an expression is worth inside of a function: ``wide``, ``other``, ``narrow``, ``none`` or ``host``."""
    platform.deploy("wide", CODE)
    platform.deploy("other", CODE, network="egress")
    narrow = ["10.20.0.0/24:5000-5999", f"{REMOTE}:443"]
    platform.deploy("narrow", CODE, network="egress", egress_to=narrow)
    platform.deploy("everywhere", CODE, network="egress", egress_to=["0.0.0.0/0"])
    platform.deploy("none", CODE, network="none")
    platform.deploy("host", CODE, network="host")

    def inside(function: str, expression: str) -> Any:
        answer = platform.invoke(function, json=expression)
        assert answer.status_code == 200, (answer.text, platform.log()[-2000:])
        return answer.json()["value"]

    return inside


def links_of(world: World) -> dict[str, int]:
    return world.machine.links("m")


def tables_of(world: World) -> list[str]:
    return [line for line in world.machine.run("nft", "list", "tables").splitlines() if "martlet" in line]


def test_egress_is_the_default_where_the_machine_can_give_it(platform, inside):
    config = platform.client.get("/functions/wide").json()["config"]

    assert config["network"] == "egress"
    assert "egress, for functions that name none" in platform.log()


@pytest.mark.parametrize(("address", "from_whom"), [(REMOTE, WAN), (LAN_HOST, LAN)])
def test_other_machines_are_reached_and_see_the_address_of_this_one(inside, address, from_whom):
    assert inside("wide", f"reach('{address}', 80)") == from_whom


@pytest.mark.parametrize("function", ["wide", "narrow"])
def test_names_are_looked_up_even_where_the_resolver_is_otherwise_out_of_bounds(inside, function):
    assert inside(function, "look_up('shop.example')") == REMOTE


@pytest.mark.parametrize("function", ["wide", "everywhere"])
@pytest.mark.parametrize(
    ("address", "port"),
    [
        pytest.param(METADATA, 80, id="metadata"),
        pytest.param("100.100.100.200", 80, id="metadata-alibaba"),
        pytest.param(WAN, 7000, id="machine-wan"),
        pytest.param(LAN, 7000, id="machine-lan"),
        pytest.param(WAN, 8080, id="machine-redirected-port"),
        pytest.param("198.18.0.1", 7000, id="gateway"),
        pytest.param("127.0.0.1", 7000, id="loopback"),
        pytest.param("0.0.0.0", 7000, id="this-machine"),
        pytest.param("240.0.0.1", 80, id="reserved"),
        pytest.param("fd99::1", 7000, id="machine-ipv6"),
        pytest.param("fd00:ec2::254", 80, id="metadata-ipv6"),
    ],
)
def test_forbidden_destinations_are_refused_at_once(inside, function, address, port):
    assert inside(function, f"reach({address!r}, {port})") in REFUSED


def test_the_platform_itself_is_out_of_reach(inside, platform):
    assert inside("wide", f"reach('127.0.0.1', {platform.port})") in REFUSED
    assert inside("wide", "__import__('os').path.exists('/run/martlet')") is False


def test_a_list_of_destinations_leaves_these_and_no_other(inside):
    assert inside("narrow", f"reach('{LAN_HOST}', 5432)") == LAN
    assert inside("narrow", f"reach('{REMOTE}', 443)") == WAN
    assert inside("narrow", f"reach('{LAN_HOST}', 80)") in REFUSED
    assert inside("narrow", f"reach('{REMOTE}', 80)") in REFUSED


def test_functions_do_not_reach_one_another(inside):
    address = inside("other", "address()")
    inside("other", "listen(9000)")

    assert inside("other", f"reach('{address}', 9000)") == "a function"
    assert inside("wide", f"reach('{address}', 9000)") in REFUSED


def test_other_machines_do_not_reach_functions(world, inside):
    address = inside("other", "address()")
    inside("other", "listen(9001)")
    world.lan.run("ip", "route", "replace", f"{address}/32", "via", LAN)

    with world.lan.entered(), socket.socket() as client:
        client.settimeout(10)
        assert client.connect_ex((address, 9001)) in REFUSED


@pytest.mark.parametrize("address", ["239.1.2.3", "10.20.0.255"], ids=["multicast", "broadcast"])
def test_nobody_hears_what_is_meant_for_everybody(world, inside, address):
    sink = world.machine.sink("0.0.0.0", 9999)
    for index in links_of(world).values():
        membership = struct.pack("4s4si", socket.inet_aton("239.1.2.3"), bytes(4), index)
        sink.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    inside("wide", f"send('{address}', 9999)")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"from the test", ("127.0.0.1", 9999))
    assert sink.recv(100) == b"from the test"
    sink.close()


def test_the_address_of_another_function_is_no_disguise(world, inside, platform):
    mine, others = inside("wide", "address()"), inside("other", "address()")
    sink = world.internet.sink(REMOTE, 9998)
    pid = platform.instances("wide")[0]["pid"]

    with open(f"/proc/{pid}/ns/net") as namespace, entered(namespace.fileno()):
        for source, text in ((others, b"disguised"), (mine, b"honest")):
            send_from(source, (REMOTE, 9998), text)

    assert sink.recv(100) == b"honest"
    sink.close()


def test_without_a_network_there_is_no_way_out(inside):
    assert inside("none", f"reach('{REMOTE}', 80)") == errno.ENETUNREACH


def test_the_network_of_the_machine_comes_with_its_services_and_resolvers(inside):
    assert inside("host", "reach('127.0.0.1', 7000)") == "127.0.0.1"
    assert "127.0.0.53" in inside("host", "open('/etc/resolv.conf').read()")
    assert "127.0.0.53" not in inside("wide", "open('/etc/resolv.conf').read()")


def test_when_a_lane_is_killed_functions_stay_as_narrow_and_nothing_else_is_left(world, inside, platform):
    for lane in ("lane-0", "lane-1"):
        os.kill(platform.children()[lane], signal.SIGKILL)

    until(lambda: platform.invoke("narrow", json=f"reach('{REMOTE}', 443)").status_code == 200)
    assert inside("narrow", f"reach('{REMOTE}', 443)") == WAN
    assert inside("narrow", f"reach('{REMOTE}', 80)") in REFUSED
    assert inside("wide", f"reach('{METADATA}', 80)") in REFUSED
    until(lambda: len(links_of(world)) == len(ways_out(platform)), why="links end with their namespaces")
    until(lambda: len(tables_of(world)) == 2, why="not each lane has its table")


def test_what_a_killed_platform_left_is_gone_with_the_next_one(world, inside, platform):
    for pid in (platform.process.pid, *platform.children().values()):
        os.kill(pid, signal.SIGKILL)
    platform.process.wait()
    assert len(tables_of(world)) == 2

    platform.start()
    until(lambda: len(links_of(world)) == len(ways_out(platform)), why="links end with their namespaces")
    until(lambda: len(tables_of(world)) == 2, why="not each lane has its table")
    assert platform.stop() == 0

    until(lambda: not links_of(world), why="links end with their namespaces")
    assert tables_of(world) == []


def ways_out(platform: Platform) -> set[int]:
    """Returns the namespaces with a way out that a process of the platform lives in."""
    found = set()
    for pid in descendants(platform.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/ns/net") as namespace:
            with entered(namespace.fileno()):
                names = [name for _, name in socket.if_nameindex()]
            if "eth0" in names:
                found.add(os.fstat(namespace.fileno()).st_ino)
    return found


def send_from(source: str, to: tuple[str, int], text: bytes) -> None:
    """Sends a datagram with any source address, as takes more power than functions have."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        datagram = struct.pack("!HHHH", 4242, to[1], 8 + len(text), 0) + text
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, socket.IPPROTO_UDP, 0)
        raw.sendto(header + socket.inet_aton(source) + socket.inet_aton(to[0]) + datagram, to)
