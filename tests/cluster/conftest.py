"""Three machines in network namespaces, each with an address of its own, behind a router that has an etcd and an S3.

router ── etcd, S3 (10.77.0.1)        and the clients: tests run on the router
├── first     gateway, control        10.77.1.2: it runs no functions
├── second    gateway, node           10.77.2.2
└── third     gateway, node           10.77.3.2
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from martlet.serve import remains
from tests.conftest import require
from tests.etcd import Cluster as Etcd
from tests.namespaces import Namespace
from tests.s3 import CREDENTIALS, S3Server
from tests.system.conftest import Platform, until

ROUTER = "10.77.0.1"
PORT, PEER_PORT = 8000, 8001


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

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Returns the nodes that it lists, by their address."""
        return {node["address"]: node for node in self.client.get("/nodes").json()}

    def kill(self) -> None:
        """Ends all of its processes at once: nobody says goodbye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it would start them anew
        for pid in self.children().values():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self) -> None:
        """Stops it, or removes what a killed one has left."""
        super().close()
        run = self.settings.run_directory
        asyncio.run(remains.sweep(run, run / "settings.json"))
        self.network.close()


class Machines:
    """The cluster."""

    def __init__(self, router: Namespace, first: Machine, second: Machine, third: Machine) -> None:
        self.router = router
        self.first, self.second, self.third = self.all = first, second, third

    @contextmanager
    def cut_off(self, machine: Machine) -> Iterator[None]:
        """Lets no packet through between a machine and all others; nobody is told."""
        chain, address = "ip cut silence", machine.address
        self.router.run(
            "nft",
            f"add table ip cut; add chain {chain} {{ type filter hook prerouting priority 0; }};"
            f"add rule {chain} ip saddr {address} drop; add rule {chain} ip daddr {address} drop",
        )
        try:
            yield
        finally:
            self.router.run("nft", "delete", "table", "ip", "cut")

    def warm(self, function: str) -> dict[Machine, list[int]]:
        """Returns the machines that said they have instances of the first revision of a function: how many, and how
        many more requests those take."""
        nodes = self.first.nodes()
        warm = {each: nodes.get(f"{each.address}:{PORT}", {"warm": {}})["warm"] for each in self.all}
        return {each: found[f"{function}@1"] for each, found in warm.items() if f"{function}@1" in found}


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The cluster that all tests share, made by the commands of its guide."""
    require(os.geteuid() == 0, "root, to make machines of network namespaces")
    require(shutil.which("nft"), "nft (nftables), to cut machines off")
    folder = tmp_path_factory.mktemp("c")
    with ExitStack() as stack:
        router = stack.enter_context(closing(Namespace()))
        with router.entered():
            shared = start_servers(stack, router, folder)
            first, second, third = (
                stack.enter_context(closing(Machine(number, folder, router, roles, **shared)))
                for number, roles in enumerate(("gateway,control", "gateway,node", "gateway,node"), 1)
            )
            first.martlet("cluster", "init")
            first.launch()
            first.wait_ready()
            token = first.martlet("cluster", "token").strip()
            for machine in (second, third):
                machine.martlet("cluster", "join", first.url, token)
                machine.launch()
            key = (first.data / "admin.key").read_text().strip()
            for machine in (first, second, third):
                machine.log_in(key)
            until(
                lambda: all(len(each.nodes()) == 3 for each in (first, second, third)),
                within=90,
                why="the machines did not find each other",
            )
        yield Machines(router, first, second, third)


def start_servers(stack: ExitStack, router: Namespace, folder: Path) -> dict[str, str]:
    """Starts what the machines share; returns the settings that name it."""
    router.run("ip", "address", "add", f"{ROUTER}/32", "dev", "lo")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    (folder / "etcd").mkdir()
    (folder / "s3").mkdir()
    etcd, s3 = Etcd(folder / "etcd", host=ROUTER), S3Server(folder / "s3", ROUTER)
    stack.callback(s3.kill)
    stack.callback(etcd.kill)
    s3.launch()
    etcd.start()
    return {"store": f"etcd://{etcd.endpoints[0]}/machines", "blobs": str(s3.bucket("machines"))}


@pytest.fixture(autouse=True)
def _on_the_router(machines: Machines) -> Iterator[None]:
    """Tests run where all machines can be reached."""
    with machines.router.entered():
        yield
