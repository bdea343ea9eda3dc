"""A platform whose store is an etcd that asks for a password."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from martlet.store_address import PASSWORD_VARIABLE
from tests.etcd import Cluster
from tests.system.conftest import START_TIMEOUT, Platform, until
from tests.system.test_failures import assert_problem

pytestmark = pytest.mark.slow

PASSWORD = "a-password-that-nobody-prints"
BOUND = 30
"""Seconds within which management answers without a store, with what a busy machine adds."""


def answering(what: object) -> str:
    return f"def handle(request):\n    return {what!r}\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("etcd"), options=("--bcrypt-cost", "4"))
    try:
        cluster.start()
        for command in (
            ("user", "add", f"root:{PASSWORD}"),
            ("user", "grant-role", "root", "root"),
            ("auth", "enable"),
        ):
            cluster.ctl(*command)
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture(scope="module")
def make(cluster: Cluster, make_platform: Callable[..., Platform]) -> Callable[..., Platform]:
    """Makes platforms that share the store."""

    def made(**system: object) -> Platform:
        store = f"etcd://root@{','.join(cluster.endpoints)}/system-test"
        platform = make_platform(
            **{"store": store, "disable_container": True, "disable_microvm": True, **system}
        )
        platform.environment = {**os.environ, PASSWORD_VARIABLE: PASSWORD}
        return platform

    return made


@pytest.fixture(scope="module")
def stored(make: Callable[..., Platform]) -> Platform:
    platform = make()
    platform.start()
    return platform


def test_what_was_deployed_is_there_after_a_restart(stored: Platform) -> None:
    stored.deploy("kept", answering("kept"))
    made = stored.admin.post("/keys", json={"name": "caller", "scopes": ["invoke"]}).json()
    stored.stop()
    stored.start()
    answer = stored.client_for(made["secret"]).post("/invoke/kept")
    assert (answer.status_code, answer.text) == (200, "kept")
    assert not (stored.data / "martlet.db").exists()


def test_the_next_request_sees_what_was_changed(stored: Platform) -> None:
    for number in range(4):
        stored.deploy("changing", answering(f"{number}"))
        # A connection of its own each time, so that each lane is asked.
        answers = {stored.client_for(stored.key).post("/invoke/changing").text for _ in range(6)}
        assert answers == {f"{number}"}
    assert stored.client.delete("/functions/changing").status_code == 204
    assert {stored.client_for(stored.key).post("/invoke/changing").status_code for _ in range(6)} == {404}


def test_other_platforms_of_the_store_see_it_too(stored: Platform, make: Callable[..., Platform]) -> None:
    other = make(lanes=1)
    other.start()
    made = stored.admin.post("/keys", json={"name": "caller", "scopes": ["manage"]}).json()
    client = other.client_for(made["secret"])
    assert client.get("/functions").status_code == 200  # unknown in memory, it is looked up
    stored.admin.delete(f"/keys/{made['id']}")
    until(lambda: client.get("/functions").status_code == 401)

    both = {stored.port, other.port}
    until(lambda: seen_by(stored).keys() == seen_by(other).keys() == both, why="they did not see each other")
    before = seen_by(stored)[other.port]
    assert (before["state"], [lane["name"] for lane in before["lanes"]]) == ("ready", ["lane-0"])
    die(other)
    until(lambda: seen_by(stored).keys() == {stored.port}, why="the dead one is still listed")
    other.start()
    until(lambda: seen_by(stored).keys() == both, why="it did not come back")
    assert seen_by(stored)[other.port]["id"] == before["id"]
    other.stop()
    until(lambda: seen_by(stored).keys() == {stored.port}, why="the one that was stopped is still listed")


def seen_by(platform: Platform) -> dict[int, dict[str, Any]]:
    """Returns the nodes that a platform lists, by their port."""
    nodes = platform.client.get("/nodes").json()
    return {int(node["address"].rpartition(":")[2]): node for node in nodes}


def die(platform: Platform) -> None:
    """Ends all of a platform as the end of its machine would: nobody says goodbye."""
    assert platform.process is not None
    platform.process.send_signal(signal.SIGSTOP)  # it would start them anew
    for pid in platform.children().values():
        os.kill(pid, signal.SIGKILL)
    platform.process.kill()
    platform.process.wait()
    platform.process = None


def test_without_its_store_a_platform_serves_what_it_knows(stored: Platform, cluster: Cluster) -> None:
    for name in ("known", "doomed"):
        stored.deploy(name, answering(name))
    stored.invoke("known")
    statuses: list[int] = []
    stop = threading.Event()

    def call() -> None:
        client = stored.client_for(stored.key)
        while not stop.is_set():
            statuses.append(client.post("/invoke/known").status_code)
            time.sleep(0.01)

    caller = threading.Thread(target=call)
    caller.start()
    (member,) = cluster.members
    member.signal(signal.SIGSTOP)  # worse than its end: nobody refuses a connection
    try:
        assert_unavailable(stored)
    finally:
        member.signal(signal.SIGCONT)
    until(lambda: stored.client.get("/ready").status_code == 200, within=60)
    stored.deploy("known", answering("changed"))
    assert stored.invoke("known").text == "changed"
    stop.set()
    caller.join()
    assert set(statuses) == {200}
    assert stored.log().count(PASSWORD) == 0


def assert_unavailable(platform: Platform) -> None:
    """Each kind of request that needs the store is refused, with a reason and without long waiting."""
    document = {"name": "new", "code": answering("new")}
    asks = (
        lambda: platform.client.post("/functions", json=document),
        lambda: platform.client.put("/functions/known", json={"code": answering("new")}),
        lambda: platform.client.delete("/functions/doomed"),  # etcd has heard of it, and may yet do it
        lambda: platform.admin.post("/keys", json={"name": "new", "scopes": ["invoke"]}),
        lambda: platform.client.get("/ready"),
        lambda: platform.invoke("unknown"),
    )

    def refused(ask: Callable[[], httpx2.Response]) -> str:
        began = time.monotonic()
        problem = assert_problem(ask(), 503, "unavailable")
        assert time.monotonic() - began < BOUND
        return problem["detail"]

    # Each waits until the store counts as out of reach: all at once, which takes no longer than one.
    with ThreadPoolExecutor(len(asks)) as callers:
        for detail in callers.map(refused, asks):
            assert "out of reach" in detail or "looked up" in detail
    assert platform.client.get("/functions/known").status_code == 200
    assert platform.client.get("/functions/new").status_code == 404


def test_a_platform_without_its_store_says_why_it_does_not_start(make: Callable[..., Platform]) -> None:
    platform = make(store="etcd://root@127.0.0.1:1/system-test")
    platform.launch()
    assert platform.process is not None
    assert platform.process.wait(START_TIMEOUT) == 7
    assert (
        "the store etcd://root:***@127.0.0.1:1/system-test cannot be used: etcd is out of reach"
        in platform.log()
    )
    assert PASSWORD not in platform.log()
    platform.process = None


def test_a_password_is_shown_to_nobody(stored: Platform) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "martlet.cli", "config", "show", "-c", str(stored.config)],
        env=stored.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "store: etcd://root:***@127.0.0.1:" in shown
    for pid in stored.children().values():
        for file in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{file}", "rb") as told:
                assert PASSWORD.encode() not in told.read()
    leaks = "import os\ndef handle(request):\n    return dict(os.environ)\n"
    stored.deploy("environment", leaks)
    assert PASSWORD not in stored.invoke("environment").text
