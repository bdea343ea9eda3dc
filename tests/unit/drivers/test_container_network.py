"""What a container has of the network that was made for it."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from martlet.model import Network
from martlet.sandbox import rtnetlink, syscalls
from martlet.sandbox.rtnetlink import Rtnetlink
from martlet.sandbox.syscalls import Clone
from tests.conftest import require
from tests.driver_rigs import ask, container_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow]

LISTENS = """
import os, socket
def handle(request):
    with socket.create_server(("127.0.0.1", 80)) as server:
        return [server.getsockname()[1], os.stat("/proc/self/ns/net").st_ino]
"""


class MadeAhead:
    """Namespaces that lead nowhere, in place of those of `Egress`; ``numbers`` are their inodes."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def open(self) -> None:
        """There is nothing to prepare."""

    async def close(self) -> None:
        """There is nothing to remove."""

    async def make(self) -> int:
        with ThreadPoolExecutor(1) as thread:
            namespace = thread.submit(self._make).result()
        self.numbers.append(os.fstat(namespace).st_ino)
        return namespace

    def _make(self) -> int:
        syscalls.unshare(Clone.NETWORK)
        with Rtnetlink() as link:
            link.ask(rtnetlink.set_up(1))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@pytest.mark.parametrize("engine", ["crun", "runc"])
async def test_a_server_may_listen_on_port_80_of_a_network_that_nobody_shares(tmp_path: Path, engine: str):
    require(shutil.which(engine), engine)
    egress = MadeAhead()
    async with container_rig(tmp_path, engine=engine, egress=egress) as rig:
        alone = await rig.instance("listens", source=LISTENS, network=Network.NONE)
        led_out = await rig.instance("listens", source=LISTENS, network=Network.EGRESS)

        first, second = await ask(alone), await ask(led_out)

    (number,) = egress.numbers
    assert first.startswith(b"[80,")
    assert not first.endswith(f"{number}]".encode())
    assert second == f"[80,{number}]".encode()
