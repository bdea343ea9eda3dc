"""Three machines in network namespaces, each with an address of its own, behind a router with what they share.

router ── etcd (three members), S3, Redis (10.77.0.1)    and the clients: tests run on the router
├── first     gateway, control, builder 10.77.1.2: it runs no functions
├── second    gateway, node           10.77.2.2
└── third     gateway, node           10.77.3.2
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from martlet.serve import remains
from tests.conftest import require
from tests.etcd import Cluster as Etcd
from tests.faulty_link import FaultyLink
from tests.namespaces import Namespace
from tests.redis_server import RedisServer
from tests.s3 import CREDENTIALS, S3Server
from tests.system.conftest import Platform, until

ROUTER = "10.77.0.1"
PORT, PEER_PORT = 8000, 8001
ROLES = ("gateway,control,builder", "gateway,node", "gateway,node")


class Machine(Platform):
    """A platform on a machine of its own."""

    def __init__(self, number: int, folder: Path, router: Namespace, roles: str, **shared: Any) -> None:
        self.address = f"10.77.{number}.2"
        self.peer = (self.address, PEER_PORT)
        self.network = Namespace()
        router.link(f"m{number}", f"10.77.{number}.1/24", self.network, "eth0", f"{self.address}/24")
        self.network.run("ip", "route", "add", "default", "via", f"10.77.{number}.1")
        super().__init__(
            folder / f"machine-{number}",
            roles=roles,
            development=False,
            host=self.address,
            api_gateway_port=PORT,
            peer_address=f"{self.address}:{PEER_PORT}",
            lanes=1,
            min_cells=1,
            stop_notice=2,
            rate_limit_per_client="off",
            disable_container=True,
            disable_microvm=True,
            **shared,
        )
        self.url = f"http://{self.address}:{PORT}"
        self.client = self.client_for(None)  # until there is a key
        self.environment = {**os.environ, **CREDENTIALS}
        self.remember_versions()

    def launch(self) -> None:
        """Starts the platform on its machine."""
        with self.network.entered():
            super().launch()

    def martlet(self, *arguments: object) -> str:
        """Runs a command on the machine and returns what it prints."""
        with self.network.entered():
            return subprocess.run(
                [sys.executable, "-m", "martlet.cli", *map(str, arguments), "-c", str(self.config)],
                env=self.environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout

    def log_in(self, key: str) -> None:
        """Lets clients show a key."""
        self.client, self.admin = self.client_for(key), self.client_for(key)

    def connections(self, address: str, port: int) -> set[str]:
        """Returns its own ends of the connections that it has to a port."""
        lines = self.network.run(
            "ss", "--no-header", "--numeric", "--tcp", "state", "established"
        ).splitlines()
        return {own for _, _, own, other in map(str.split, lines) if other == f"{address}:{port}"}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Returns the nodes that it lists, by their address; raises where management is out of reach."""
        nodes = self.client.get("/nodes").raise_for_status().json()
        return {node["address"]: node for node in nodes}

    def kill(self) -> None:
        """Ends all of its processes at once: nobody says goodbye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it would start them anew
        pids = [*self.children().values()]
        ends = [os.pidfd_open(pid) for pid in pids]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for end in ends:  # until then one may still take a request
            select.select([end], [], [])
            os.close(end)
        self.process = None

    def close(self) -> None:
        """Stops it, or removes what a killed one has left."""
        super().close()
        run = self.settings.run_directory
        asyncio.run(remains.sweep(run, run / "settings.json"))
        self.network.close()


class Machines:
    """The cluster."""

    def __init__(
        self,
        router: Namespace,
        shared: Shared,
        first: Machine,
        second: Machine,
        third: Machine,
        *more: Machine,
    ) -> None:
        self.router = router
        self.etcd, self.s3, self.redis = shared.etcd, shared.s3, shared.redis
        self.first, self.second, self.third = self.all = first, second, third
        self.more = more
        self._tables = count()

    def cut_off(self, machine: Machine) -> AbstractContextManager[None]:
        """Lets no packet through between a machine and all others; nobody is told."""
        return self._dropping("", f"ip saddr {machine.address}", f"ip daddr {machine.address}")

    def cut(self, machine: Machine, other: Machine | Sequence[int]) -> AbstractContextManager[None]:
        """Lets no packet through between two machines, or a machine and ports of the router; nobody is told."""
        return self._dropping("", *_between(machine, other))

    def losing(self, percent: int, machine: Machine, other: Machine) -> AbstractContextManager[None]:
        """Lets some packets between two machines be lost, any of them."""
        return self._dropping(f"numgen random mod 100 < {percent}", *_between(machine, other))

    @contextmanager
    def relayed(self, machine: Machine, address: str, port: int) -> Iterator[FaultyLink]:
        """Leads connections of a machine to a port over a link that can be spoiled. Those it has already are broken off
        with the next packet; where none is sent who has them gives them up after a minute and a half."""
        link = FaultyLink(port, host=ROUTER, server=address)
        asked = f"ip saddr {machine.address} ip daddr {address} tcp dport {port}"
        nat = "dstnat { type nat hook prerouting priority dstnat; }; add rule ip NAME dstnat"
        old = (
            f"{hook} {{ type filter hook {hook} priority 0; }}; "
            f"add rule ip NAME {hook} {asked} reject with tcp reset"
            for hook in ("input", "forward")
        )
        direct = machine.connections(address, port)
        try:
            with self._rules(f"{nat} {asked} dnat to {ROUTER}:{link.port}", *old):
                until(
                    lambda: direct.isdisjoint(machine.connections(address, port)),
                    within=150,
                    why="old connections do not end",
                )
                yield link
        finally:
            link.close()

    def _dropping(self, some: str, *packets: str) -> AbstractContextManager[None]:
        """Drops packets, those that come through the router and those that it sends itself."""
        rules = [
            f"{hook} {{ type filter hook {hook} priority 0; }}; "
            + "; ".join(f"add rule ip NAME {hook} {which} {some} drop" for which in packets)
            for hook in ("prerouting", "output")
        ]
        return self._rules(*rules)

    @contextmanager
    def _rules(self, *chains: str) -> Iterator[None]:
        """Has chains on the router, in a table of their own."""
        name = f"fault{next(self._tables)}"
        commands = [f"add table ip {name}", *(f"add chain ip {name} {chain}" for chain in chains)]
        self.router.run("nft", "; ".join(commands).replace("NAME", name))
        try:
            yield
        finally:
            self.router.run("nft", "delete", "table", "ip", name)

    def warm(self, function: str) -> dict[Machine, list[int]]:
        """Returns the machines that said they have instances of the first revision of a function: how many, and how
        many more requests those take."""
        nodes = self.first.nodes()
        warm = {each: nodes.get(f"{each.address}:{PORT}", {"warm": {}})["warm"] for each in self.all}
        return {each: found[f"{function}@1"] for each, found in warm.items() if f"{function}@1" in found}


def _between(machine: Machine, other: Machine | Sequence[int]) -> tuple[str, str]:
    """Returns what the packets are that go from one to the other, and those that come back."""
    here = machine.address
    if isinstance(other, Machine):
        return f"ip saddr {here} ip daddr {other.address}", f"ip saddr {other.address} ip daddr {here}"
    ports = "{ " + ", ".join(map(str, other)) + " }"
    return f"ip saddr {here} tcp dport {ports}", f"ip daddr {here} tcp sport {ports}"


@dataclass(frozen=True)
class Shared:
    """What the machines share, which runs on the router."""

    etcd: Etcd
    s3: S3Server
    redis: RedisServer

    @classmethod
    def start(cls, stack: ExitStack, router: Namespace, folder: Path) -> Shared:
        """Starts all of it; the stack ends it."""
        router.run("ip", "address", "add", f"{ROUTER}/32", "dev", "lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for name in ("etcd", "s3", "redis"):
            (folder / name).mkdir()
        shared = cls(
            Etcd(folder / "etcd", size=3, host=ROUTER),
            S3Server(folder / "s3", ROUTER),
            RedisServer(folder / "redis", ROUTER),
        )
        for server in (shared.etcd, shared.s3, shared.redis):
            stack.callback(server.kill)
        shared.s3.launch()
        shared.redis.start()
        shared.etcd.start()
        return shared

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name it."""
        return {
            "store": f"etcd://{','.join(self.etcd.endpoints)}/machines",
            "blobs": str(self.s3.bucket("machines")),
            "log_store": str(self.s3.bucket("logs")),
            "queue": self.redis.url,
        }


@contextmanager
def making_machines(folder: Path, *more: str, first: str = ROLES[0], **system: Any) -> Iterator[Machines]:
    """Lends a cluster that was made by the commands of its guide.

    Args:
        folder: for what machines keep.
        more: the roles of further machines.
        first: the roles of the first.
        system: settings besides.
    """
    require(os.geteuid() == 0, "root, to make machines of network namespaces")
    require(shutil.which("nft"), "nft (nftables), to cut machines off")
    with ExitStack() as stack:
        router = stack.enter_context(closing(Namespace()))
        with router.entered():
            shared = Shared.start(stack, router, folder)
            made = [
                stack.enter_context(
                    closing(Machine(number, folder, router, roles, **shared.settings, **system))
                )
                for number, roles in enumerate((first, *ROLES[1:], *more), 1)
            ]
            begun, *joining = made
            begun.martlet("cluster", "init")
            begun.launch()
            begun.wait_ready()
            token = begun.martlet("cluster", "token").strip()
            for machine in joining:
                machine.martlet("cluster", "join", begun.url, token)
                machine.launch()
            key = (begun.data / "admin.key").read_text().strip()
            for machine in made:
                machine.log_in(key)
            until(
                lambda: all(len(each.client.get("/nodes").json()) == len(made) for each in made[:3]),
                within=90,
                why="the machines did not find each other",
            )
        yield Machines(router, shared, *made)


@pytest.fixture(scope="package")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The cluster that all tests share."""
    with making_machines(tmp_path_factory.mktemp("c")) as made:
        yield made


@pytest.fixture(autouse=True)
def _on_the_router(machines: Machines) -> Iterator[None]:
    """Tests run where all machines can be reached."""
    with machines.router.entered():
        yield
