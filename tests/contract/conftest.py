"""What the contract suites share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from martlet.storage.etcd.store import EtcdStore
from martlet.storage.memory import MemoryStore
from martlet.storage.store import Store
from martlet.store_address import EtcdAddress
from tests.contract.python_shim import Shim, Zygote, program
from tests.etcd import Cluster

Connect = Callable[[], Awaitable[Store]]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def shim(zygote: Zygote, tmp_path: Path) -> Iterator[Shim]:
    """A forked cell."""
    shim = Shim(tmp_path, zygote.fork)
    yield shim
    shim.close()


@pytest.fixture(params=[False, True], ids=["--socket", "--listen-fd"])
def program_shim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shim]:
    """A cell that was started anew."""
    shim = Shim(tmp_path, partial(program, by_descriptor=request.param))
    yield shim
    shim.close()


@pytest.fixture(params=["memory", "etcd"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Opens a store; called again, it opens the same data as another client does."""
    opened: list[Store] = []
    address = None
    if request.param == "etcd":
        cluster: Cluster = request.getfixturevalue("etcd")
        address = EtcdAddress(cluster.endpoints, f"/{uuid4().hex}")

    async def connect() -> Store:
        if address is not None:
            opened.append(await EtcdStore.open(address))
        elif not opened:
            opened.append(MemoryStore())
        return opened[-1]

    yield connect
    for store in opened:
        await store.close()
