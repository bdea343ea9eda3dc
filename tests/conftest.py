"""What every test may use."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests.distribution import Distribution, together

if TYPE_CHECKING:
    from tests.etcd import Cluster
    from tests.redis_server import RedisServer
    from tests.s3 import S3Server

# How hypothesis looks for examples; `pytest --hypothesis-profile=long` looks longer. In CI it tries the same ones each
# time, so that a change is never blamed for what it has not done; fuzzers (tests/fuzz) find what is new. No deadlines:
# the machines are shared.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")

TOOLCHAINS = Path(__file__).resolve().parent.parent / ".toolchains"
"""Where `scripts.toolchains` puts what tests need; a platform takes it as ``system.toolchains_path``."""
MICROVMS = TOOLCHAINS / "microvms"
"""Where guests and saved machines are kept, from one run of the tests to the next."""

UNPRIVILEGED = "MARTLET_TESTS_UNPRIVILEGED"
"""In the environment of tests that run without root, on a stage of `tests.unprivileged`: the isolation level there."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what the tests may be asked to do besides."""
    parser.addoption("--every-engine", action="store_true", help="run every attack on every container engine")
    parser.addoption(
        "--every-client", action="store_true", help="build AWS's clients too that compile for minutes"
    )
    parser.addoption("--every-fault", action="store_true", help="try every fault on a cluster")
    parser.addoption(
        "--every-rung",
        action="store_true",
        help="run every attack, and the contract of runtimes, in microVMs too",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution | None:
    """Says who distributes the tests over workers where that is done by files."""
    return Distribution(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts folders with slow tests first, so that no worker is left with one at the end while others have none, and
    before them those that one worker runs. The tests of a folder follow one another: what they share, as a platform, is
    stopped after the last of them.
    """
    rare = [item for item in items if item.get_closest_marker("rare")]
    if rare and not config.getoption("every_fault"):
        config.hook.pytest_deselected(items=rare)
        items[:] = [item for item in items if item not in rare]
    slow = {item.path.parent for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (together(item.nodeid) is None, item.path.parent not in slow))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder as ``tmp_path`` is, for sockets deep in it: no path of one may have more than 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="martlet-") as folder:
        yield Path(folder)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as Martlet does."""
    return "asyncio"


def require(condition: object, reason: str) -> None:
    """Skips the test where a component is missing, and fails it instead when CI=true."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Cluster"]:
    """An etcd that the tests share, each with a prefix of its own."""
    from tests.etcd import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("etcd"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RedisServer]":
    """A real Redis; each test takes a queue of its own."""
    from tests.redis_server import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """A real S3 server with the empty bucket ``tests``; each test takes a prefix of its own."""
    from tests.s3 import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def require_root() -> None:
    """Skips the test where there is neither root nor a stage that lets a user do the same."""
    require(os.geteuid() == 0 or UNPRIVILEGED in os.environ, "root, to make namespaces and cgroups")


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    """Tests marked ``root`` need it."""
    if request.node.get_closest_marker("root"):
        require_root()
