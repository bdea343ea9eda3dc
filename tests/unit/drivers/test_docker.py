"""The driver of container engines: what containers are confined by, and what is left when something fails."""

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from martlet.drivers import firewall
from martlet.drivers.docker import remains
from martlet.drivers.docker.images import SKELETONS
from martlet.drivers.docker.labels import Labels
from martlet.drivers.docker.monitors import Monitor
from martlet.drivers.docker.service import Service
from martlet.drivers.docker.strangers import Strangers
from martlet.drivers.docker.verification import group_of, lacks
from martlet.drivers.driver import DriverError, Handle, LoadFailed, State
from martlet.drivers.egress import Egress
from martlet.model import Network
from martlet.sandbox.cgroups import Limits
from tests.conftest import require
from tests.container_engines import Dockerd, docker_service, podman_service
from tests.driver_rigs import LANE, SECONDS, Rig, ask, docker_rig, eventually, podman_rig
from tests.namespaces import Namespace
from tests.processes import status_of

pytestmark = [pytest.mark.anyio, pytest.mark.root]

LOOK = """
import os, resource, socket, subprocess

PLACES = (
    "/", "/etc", "/function", "/.code", "/.martlet", "/.sandbox", "/run", "/var/tmp", "/proc/sys", "/dev", "/tmp",
    "/dev/shm",
)

def attempt(call, *arguments):
    try:
        return call(*arguments) and None
    except OSError as error:
        return error.strerror

def handle(request):
    scratch = os.statvfs("/tmp")
    return {
        "writable": [place for place in PLACES if not attempt(open, place + "/x", "w")],
        "scratch": scratch.f_blocks * scratch.f_frsize,
        "executes": subprocess.run(["/bin/true"]).returncode,
        "hostname": socket.gethostname(),
        "links": [name for _, name in socket.if_nameindex()],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "file": resource.getrlimit(resource.RLIMIT_FSIZE),
        "shared": attempt(os.listdir, "/.martlet"),
        "dependencies": os.listdir("/dependencies"),
        "hosts": open("/etc/hosts").read(),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "trigger": attempt(os.open, "/proc/sysrq-trigger", os.O_WRONLY),
        "user": [os.getuid(), os.getgid()],
    }
"""

REACH = """
import socket

def handle(request):
    with socket.socket() as client:
        client.settimeout(20)
        return str(client.connect_ex(tuple(request.get_json())))
"""

RIGS = [pytest.param(docker_rig, id="docker"), pytest.param(podman_rig, id="podman")]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The loop of the drivers that tests share."""
    return "asyncio"


@pytest.fixture(scope="module", params=RIGS)
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    async with request.param(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
async def rig(opened: Rig) -> AsyncIterator[Rig]:
    """A driver without any container."""
    yield opened
    await opened.clear()


@pytest.fixture(params=["docker", "podman"])
def service_of(request: pytest.FixtureRequest) -> Callable[[Path], Service]:
    return {"docker": docker_service, "podman": podman_service}[request.param]


@pytest.fixture(scope="module")
def frail() -> Iterator[Dockerd]:
    """A Docker Engine to do harm to."""
    daemon = Dockerd()
    daemon.start()
    yield daemon
    daemon.remove()


def service_of_frail(frail: Dockerd, patience: float = 20.0) -> Callable[[Path], Service]:
    return lambda folder: Service("docker", folder / "docker.sock", frail.socket, patience=patience)


async def containers_of(rig: Rig, service: Service) -> list[str]:
    """Returns the ids of all containers of the rig's platform."""
    engine = await service.reach()
    return [*await engine.labelled(Labels.of(rig.run, LANE).of_platform)]


def container_of(handle: Handle) -> str:
    return str(handle.state["container"])


async def test_a_function_sees_its_own_container_and_nothing_else(rig: Rig):
    handle = await rig.instance("look", source=LOOK, memory="64Mi", concurrency=3)
    seen = json.loads(await ask(handle))
    assert seen["writable"] == ["/tmp", "/dev/shm"]
    assert seen["scratch"] == 32 * 1024 * 1024
    assert seen["executes"] == 0
    assert seen["hostname"] == "look"
    assert seen["links"] == ["lo"]
    assert seen["files"] == [1030, 1030]
    assert seen["file"] == [32 * 1024 * 1024] * 2
    assert seen["shared"] == "Permission denied"
    assert seen["dependencies"] == []
    assert "containers.internal" not in seen["hosts"]
    assert seen["processes"] == ["1"]
    assert seen["trigger"] is not None
    assert seen["user"] == [handle.state["identity"]] * 2


async def test_an_instance_has_no_power_and_two_filters(rig: Rig):
    handle = await rig.instance("echo")

    assert handle.pid is not None
    status = status_of(handle.pid)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp_filters"] == "2"  # the engine's and the cell's own


async def test_what_an_engine_does_not_confine_is_seen():
    here = lacks(os.getpid(), 1, Network.NONE, Limits(1, None, 1))

    assert here.keys() >= {"files", "processes", "network", "host name", "user", "limits"}
    assert "network" not in lacks(os.getpid(), 1, Network.HOST, Limits(1, None, 1))


async def test_limits_are_those_of_the_revision(rig: Rig):
    handle = await rig.instance("echo", memory="64Mi", cpu_limit="500m", concurrency=5)

    assert handle.pid is not None
    group = group_of(handle.pid)
    assert group is not None
    assert group.limits() == Limits(64 * 1024 * 1024, 500, 128 + 4 * 5)


@pytest.fixture
def machine(service_of: Callable[[Path], Service], tmp_path: Path) -> Iterator[Namespace]:
    """Where the driver is: it serves at 192.0.2.2, and the world at 192.0.2.1."""
    service_of(tmp_path)  # what a test starts is in its namespace, and the engine outlives this one
    require(shutil.which("ip"), "ip")
    require(firewall.find(), "nft")
    machine, world = Namespace(), Namespace()
    machine.link("wan", "192.0.2.2/24", world, "eth0", "192.0.2.1/24")
    for where, address, port in (
        (world, "192.0.2.1", 80),
        (world, "192.0.2.1", 81),
        (machine, "192.0.2.2", 80),
    ):
        where.serve(address, port)
    with machine.entered():
        yield machine
    machine.close()
    world.close()


async def test_a_way_out_leads_where_the_revision_says_and_nowhere_else(
    machine: Namespace, service_of: Callable[[Path], Service], tmp_path: Path
):
    egress = Egress(tmp_path / "run", IPv4Network("198.18.0.0/20"))
    async with docker_rig(tmp_path, service_of, egress=egress) as rig:
        wide = await rig.instance("reach", source=REACH, network=Network.EGRESS)
        narrow = await rig.instance("reach", source=REACH, network=Network.EGRESS, egress_to=["192.0.2.1:80"])
        assert len(machine.links("m")) == 2

        world, other, own = ("192.0.2.1", 80), ("192.0.2.1", 81), ("192.0.2.2", 80)
        assert await ask(narrow, world) == b"0"
        assert await ask(narrow, other) != b"0"
        assert await ask(narrow, own) != b"0"
        assert await ask(wide, other) == b"0"
        assert await ask(wide, own) != b"0"
    await eventually(lambda: not machine.links("m"), "links go with their containers")


async def test_a_lane_without_a_way_out_gives_none(rig: Rig):
    with pytest.raises(DriverError, match="gives no cell a way out"):
        await rig.start(Network.EGRESS)
    handle = await rig.start()
    with pytest.raises(DriverError, match="no network that could be narrowed"):
        await rig.specialise(handle, "echo", egress_to=["192.0.2.1"])
    with pytest.raises(DriverError, match="allow_host_network"):
        await rig.start(Network.HOST)


async def test_a_function_in_the_network_of_the_machine_sees_it(
    tmp_path: Path, service_of: Callable[[Path], Service]
):
    async with docker_rig(tmp_path, service_of, allow_host_network=True) as rig:
        handle = await rig.instance("look", source=LOOK, network=Network.HOST)

        seen = json.loads(await ask(handle))
        assert seen["links"] == [name for _, name in socket.if_nameindex()]
        assert seen["hostname"] == socket.gethostname()


async def test_code_that_takes_too_much_memory_to_load_says_so(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match="memory limit of 32") as caught:
        await rig.specialise(handle, "greedy", source="x = bytearray(1 << 30)", memory="32Mi")

    assert caught.value.kind == "OutOfMemory"


async def test_a_container_that_somebody_kills_or_removes_is_reported(
    tmp_path: Path, service_of: Callable[[Path], Service]
):
    async with docker_rig(tmp_path, service_of) as rig:
        killed, removed = await rig.instance("echo"), await rig.instance("echo")
        engine = await rig.driver._service.reach()  # type: ignore[attr-defined]

        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        await engine.remove(container_of(removed))

        await eventually(lambda: len(rig.exits) == 2, "both ends are reported")
        assert sorted(rig.exits) == sorted((each.id, -signal.SIGKILL) for each in (killed, removed))
        for handle in (killed, removed):
            await rig.driver.destroy(handle)
        assert await containers_of(rig, rig.driver._service) == []  # type: ignore[attr-defined]


async def test_an_image_that_somebody_removed_is_made_again(
    tmp_path: Path, service_of: Callable[[Path], Service]
):
    async with docker_rig(tmp_path, service_of) as rig:
        await rig.driver.destroy(await rig.start())
        engine = await rig.driver._service.reach()  # type: ignore[attr-defined]
        images = await engine._call("GET", "/images/json")
        for name in [
            tag for image in images for tag in image["RepoTags"] or () if tag.startswith(f"{SKELETONS}:")
        ]:
            await engine._call("DELETE", f"/images/{name}?force=true")

        handle = await rig.instance("echo")

        assert await ask(handle, 1) == b"1"


async def test_what_lives_when_the_lane_is_gone_is_recovered_and_the_rest_swept(
    tmp_path: Path, service_of: Callable[[Path], Service]
):
    folder = tmp_path / "platform"
    folder.mkdir()
    async with docker_rig(folder, service_of) as former:
        kept, lost, cell = await former.instance("echo"), await former.instance("echo"), await former.start()
        # As if it had been killed: it forgets, and does nothing any more.
        for each in former.driver._cells.values():  # type: ignore[attr-defined]
            each.let_go()
        former.driver._cells.clear()  # type: ignore[attr-defined]
        shutil.rmtree(folder / "packages")
        async with docker_rig(folder, service_of) as rig:
            assert await rig.driver.recover(Handle.from_json(kept.to_json()))
            await rig.driver.sweep()

            assert await containers_of(rig, rig.driver._service) == [container_of(kept)]  # type: ignore[attr-defined]
            assert await ask(kept, 1) == b"1"
            assert not await rig.driver.recover(lost)
            assert not await rig.driver.recover(cell)
            assert kept.pid is not None
            os.kill(kept.pid, signal.SIGKILL)
            await eventually(lambda: rig.exits, "the end is reported")
            assert rig.exits == [(kept.id, -signal.SIGKILL)]
            await rig.driver.destroy(kept)


async def test_what_a_killed_platform_left_is_swept_by_its_run_directory(
    tmp_path: Path, service_of: Callable[[Path], Service]
):
    async with docker_rig(tmp_path, service_of) as rig:
        handle = await rig.instance("echo")

        await remains.sweep(rig.run)

        await eventually(lambda: rig.exits, "the end is reported")
        assert await containers_of(rig, rig.driver._service) == []  # type: ignore[attr-defined]
        await rig.driver.destroy(handle)


FATAL_RUNC = """#!/bin/sh
case " $* " in *" create "*)
    runc "$@" || exit
    rm "{armed}" && pkill -KILL -f "unix://{folder}/podman.sock"
    exit 0
esac
exec runc "$@"
"""
"""The runtime, after whose first container podman is killed."""


async def sweep_lane(rig: Rig) -> None:
    await rig.driver.sweep()


async def sweep_platform(rig: Rig) -> None:
    await remains.sweep(rig.run)


@pytest.mark.parametrize("sweep", [None, sweep_lane, sweep_platform])
async def test_a_container_that_podman_died_of_is_not_forgotten_by_the_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Callable[[Rig], Awaitable[None]] | None
):
    require(shutil.which("runc"), "runc (Debian: runc)")
    armed, program = tmp_path / "armed", tmp_path / "runtime"
    program.write_text(FATAL_RUNC.format(armed=armed, folder=tmp_path))
    program.chmod(0o755)
    name = Labels.of(tmp_path / "run", LANE).name("")

    def left() -> list[str]:
        found = []
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):
                words = place.read_text(errors="replace").split("\0")
                if any(word.startswith(name) for word in words):
                    found.append(words[words.index("-c") + 1])
        return found

    async with docker_rig(tmp_path, lambda folder: podman_service(folder, "--runtime", str(program))) as rig:
        with monkeypatch.context() as patch:
            if sweep is not None:  # as if the lane had been killed as well
                patch.setattr(Strangers, "remove", AsyncMock())
            armed.touch()
            with pytest.raises(DriverError, match="closed before the answer"):
                await rig.start()
        if sweep is not None:
            (container,) = left()
            assert [*Path("/sys/fs/cgroup").glob(f"**/libpod-{container}")]
            await sweep(rig)
            assert not [*Path("/sys/fs/cgroup").glob(f"**/libpod-{container}")]
        assert left() == []
        assert await ask(await rig.instance("echo"), 1) == b"1"


async def test_a_container_whose_runtime_is_gone_is_let_be():
    left = Monitor(os.getpid(), "name", "0" * 64, "/nowhere/runc")  # what has its number now is not hit
    with capture_logs() as said:
        await left.end()
    assert [each["event"] for each in said] == ["forgotten_container_not_removed"]


async def test_without_an_engine_it_says_what_to_do(tmp_path: Path):
    nobody = lambda folder: Service("docker", folder / "docker.sock", folder / "nobody")  # noqa: E731
    async with docker_rig(tmp_path, nobody) as rig:
        with pytest.raises(DriverError, match=r"does not answer.*What to do: start Docker Engine"):
            await rig.start()

        found = rig.driver.probe()
        assert {each.state for each in found} == {State.MISSING}
        assert all("does not answer" in each.why and "Docker Engine" in each.remedy for each in found)


async def test_an_engine_that_hangs_is_not_waited_for_and_leaves_nothing(frail: Dockerd, tmp_path: Path):
    async with docker_rig(tmp_path, service_of_frail(frail, patience=5.0)) as rig:
        frail.signal(signal.SIGSTOP)
        try:
            with pytest.raises(DriverError, match="does not answer"):
                await rig.start()
        finally:
            frail.signal(signal.SIGCONT)

        service = service_of_frail(frail)(tmp_path)
        assert await ask(await rig.instance("echo"), 1) == b"1"
        assert len(await containers_of(rig, service)) == 1


async def test_an_engine_killed_during_a_start_is_said_and_nothing_is_left_when_it_is_back(
    frail: Dockerd, tmp_path: Path
):
    async with docker_rig(tmp_path, service_of_frail(frail)) as rig:
        instance = await rig.instance("echo")
        starting = asyncio.gather(*(rig.start() for _ in range(3)), return_exceptions=True)
        await eventually(lambda: len(rig.driver._cells) == 4, "they are on their way")  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        frail.kill()
        results = await starting

        assert any(isinstance(each, DriverError) for each in results)
        frail.start()
        assert await ask(await rig.instance("echo"), 1) == b"1"
        living = {container_of(each) for each in results if isinstance(each, Handle)} | {
            container_of(instance)
        }
        service = service_of_frail(frail)(tmp_path)
        async with asyncio.timeout(SECONDS):
            while len(set(await containers_of(rig, service)) - living) != 1:  # the one that was started last
                await asyncio.sleep(0.1)
    assert await containers_of(rig, service) == []
