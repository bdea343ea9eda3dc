"""The client, the jail and snapshots with Firecracker itself, where there is one.

Its programs come from its own releases and not from a registry of packages, as all does that tests install; so these
tests are skipped without them in CI too, and say so. Their guest is a kernel of a few bytes that prints a word again
and again.
"""

import asyncio
import platform
import secrets
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from martlet.microvm import qemu
from martlet.microvm.firecracker import mmds, vsock
from martlet.microvm.firecracker.client import Firecracker
from martlet.microvm.firecracker.errors import NoAnswer, Refused
from martlet.microvm.firecracker.jailer import Furnishing, Jail, limits_as_settings
from martlet.microvm.firecracker.models import (
    Balloon,
    BootSource,
    Drive,
    DriveUpdate,
    EntropyDevice,
    Logger,
    MachineConfiguration,
    MemoryBackend,
    Metrics,
    MmdsConfig,
    NetworkInterface,
    NetworkInterfaceUpdate,
    NetworkOverride,
    RateLimiter,
    SnapshotCreate,
    SnapshotLoad,
    TokenBucket,
    Vsock,
)
from martlet.microvm.firecracker.probe import OLDEST, RENAMES_TAPS, Program, probe
from martlet.microvm.kvm import find as find_kvm
from martlet.sandbox.cgroups import GroupV2, Limits
from martlet.sandbox.hierarchies import find_everywhere, usable_group
from tests.driver_rigs import ask, microvm_rig
from tests.namespaces import Namespace

pytestmark = pytest.mark.anyio

WORD = b"tick\n"
SECONDS = 30.0
USER = 65_000
MEMORY = MemoryBackend(backend_type="File", backend_path="memory")
SNAPSHOT = ("state", "memory", "kernel", "disk")


@pytest.fixture(scope="module")
def programs() -> tuple[Program, Program]:
    found = probe()
    lacks = [each for each in found.findings if not each.held and each.what != "KVM"]
    if lacks or found.firecracker is None or found.jailer is None:
        why = "; ".join(f"{each.what}: {each.found}" for each in lacks)
        pytest.skip(f"not run with a real Firecracker, which no registry of packages offers: {why}")
    return found.firecracker, found.jailer


@pytest.fixture(scope="module")
def kvm(programs: tuple[Program, Program]) -> None:
    """A guest has run here for a while."""
    if platform.machine() != "x86_64":
        pytest.skip(f"not run with a real guest: the one of these tests is not made for {platform.machine()}")

    async def scene() -> None:
        with TemporaryDirectory(dir="/tmp") as folder:
            async with started(programs[0], Path(folder)) as (firecracker, at):
                await put_together(firecracker)
                await firecracker.start()
                await ticks(at)

    try:
        asyncio.run(scene())
    except (Refused, TimeoutError) as error:
        pytest.skip(f"not run with a real guest: KVM runs none here ({error or 'it has hung'})")


def kernel() -> bytes:
    """Returns a kernel: an ELF file for x86_64 whose only segment prints `WORD` to the serial port, forever."""
    code = bytearray.fromhex(
        "baf8030000"  # mov edx, 0x3f8
        "488d3500000000"  # again: lea rsi, [rip + word]
        "ac"  # next: lodsb
        "84c0 7403 ee ebf8"  # until 0: out dx, al; jump next
        "b9c8000000"  # mov ecx, 200
        "e480 ffc9 75fa"  # in al, 0x80, so often
    )
    code += b"\xeb" + struct.pack("b", 5 - (len(code) + 2))  # jump again
    code[8:12] = struct.pack("<i", len(code) - 12)
    code += WORD + b"\0"
    at = 0x100000
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, at, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, len(header) + 56, at, at, len(code), len(code), 4096)
    return header + segment + code


@asynccontextmanager
async def started(
    program: Program, folder: Path, network: Namespace | None = None
) -> AsyncIterator[tuple[Firecracker, Path]]:
    """A Firecracker in a folder of its own, with what a guest is made of."""
    (folder / "kernel").write_bytes(kernel())
    (folder / "disk").write_bytes(bytes(65536))
    for name in ("log", "metrics"):
        (folder / name).touch()
    with (folder / "out").open("wb") as out, network.entered() if network else nullcontext():
        process = subprocess.Popen(
            [str(program.path), "--id", "vm-1", "--api-sock", "api.sock", "--level", "Error"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield await Firecracker.connect(folder / "api.sock", SECONDS), folder
    finally:
        process.kill()
        process.wait()


async def put_together(firecracker: Firecracker) -> None:
    for each in (
        BootSource(kernel_image_path="kernel", boot_args="quiet"),
        MachineConfiguration(vcpu_count=1, mem_size_mib=16, smt=False),
        Drive(drive_id="code", is_root_device=False, path_on_host="disk", is_read_only=True),
        Vsock(guest_cid=3, uds_path="v.sock"),
        Balloon(amount_mib=0, deflate_on_oom=True, stats_polling_interval_s=1),
        EntropyDevice(),
    ):
        await firecracker.put(each)


async def ticks(folder: Path, more_than: int = 2) -> int:
    """Waits until the guest has printed its word often enough; returns how often."""
    async with asyncio.timeout(SECONDS):
        while (count := (folder / "out").read_bytes().count(WORD)) <= more_than:
            await asyncio.sleep(0.01)
    return count


async def gone(firecracker: Firecracker) -> None:
    """Waits until nobody answers any more."""
    async with asyncio.timeout(SECONDS):
        with suppress(NoAnswer):
            while True:
                await firecracker.info()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace for taps."""
    namespace = Namespace()
    yield namespace
    namespace.close()


async def test_it_is_told_and_says_what_the_description_has(programs: tuple[Program, Program], short: Path):
    async with started(programs[0], short) as (firecracker, _):
        assert str(programs[0].version) in await firecracker.version()
        assert (await firecracker.info()).state == "Not started"
        await firecracker.put(Logger(log_path="log", level="Error"))
        await firecracker.put(Metrics(metrics_path="metrics"))
        await put_together(firecracker)
        assert (await firecracker.machine_config()).mem_size_mib == 16
        assert (await firecracker.balloon()).stats_polling_interval_s == 1

        metadata = mmds.Metadata("token", {"A": "1"}, {"KEY": "ключ"})
        assert await firecracker.mmds() == {}
        await firecracker.put_mmds(metadata.store())
        await firecracker.patch_mmds({"martlet": {"environment": {"A": None}}})
        assert (await firecracker.mmds())["martlet"]["environment"] == {}


async def test_the_limit_of_metadata_is_the_one_that_is_kept(programs: tuple[Program, Program], short: Path):
    frame = len('{"martlet":{"format":1,"boot_token":"t","environment":{"A":""},"secrets":{}}}')
    full = mmds.Metadata("t", {"A": "x" * (mmds.LIMIT - frame)}).store()
    async with started(programs[0], short) as (firecracker, _):
        await firecracker.put_mmds(full)
        full["martlet"]["environment"]["A"] += "x"
        with pytest.raises(Refused, match="make the document smaller") as refused:
            await firecracker.put_mmds(full)
        assert "xxx" not in str(refused.value)


async def test_refusals_are_known(programs: tuple[Program, Program], short: Path):
    async with started(programs[0], short) as (firecracker, _):
        for call, words in (
            (
                firecracker.put(BootSource(kernel_image_path="missing")),
                "a path that exists where Firecracker looks",
            ),
            (firecracker.pause(), "start the microVM, or load a snapshot, first"),
            (
                firecracker.patch(DriveUpdate(drive_id="code", path_on_host="disk")),
                "start the microVM, or load",
            ),
            (
                firecracker.put(SnapshotCreate(snapshot_path="s", mem_file_path="m")),
                "start the microVM, or load",
            ),
        ):
            with pytest.raises(Refused, match=words):
                await call
        await firecracker.put(MachineConfiguration(vcpu_count=1, mem_size_mib=16))
        with pytest.raises(Refused, match="a Firecracker that has just started"):
            await firecracker.put(SnapshotLoad(snapshot_path="s", mem_backend=MEMORY))


@pytest.mark.usefixtures("kvm")
async def test_a_guest_runs_stops_and_goes_on_in_clones(programs: tuple[Program, Program], short: Path):
    template = short / "template"
    template.mkdir()
    async with started(programs[0], template) as (firecracker, _):
        await put_together(firecracker)
        await firecracker.start()
        assert (await firecracker.info()).state == "Running"
        await ticks(template)
        with pytest.raises(Refused, match="do this before the microVM starts"):
            await firecracker.put(Vsock(guest_cid=3, uds_path="v.sock"))
        with pytest.raises(NoAnswer, match=r"did not accept|nobody listens"):
            await vsock.connect(template / "v.sock", 5, asyncio.Protocol, timeout=0.2)
        assert (await firecracker.balloon_stats()).target_mib == 0
        with pytest.raises(Refused, match="pause the microVM first"):
            await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"))
        await firecracker.pause()
        await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"), patience=SECONDS)
        said = (template / "out").read_bytes().count(WORD)
        await firecracker.resume()
        await ticks(template, more_than=said)

    for number in range(2):
        clone = short / f"clone{number}"
        clone.mkdir()
        for name in ("state", "memory"):
            (clone / name).hardlink_to(template / name)
        async with started(programs[0], clone) as (firecracker, _):
            await firecracker.put(SnapshotLoad(snapshot_path="state", mem_backend=MEMORY), patience=SECONDS)
            assert (await firecracker.info()).state == "Paused"
            await firecracker.put_mmds(mmds.Metadata(f"token {number}").store())
            await firecracker.resume()
            await ticks(clone)


@pytest.mark.root
@pytest.mark.usefixtures("kvm")
async def test_a_clone_has_a_tap_of_its_own(
    programs: tuple[Program, Program], short: Path, namespace: Namespace
):
    if (programs[0].version or OLDEST) < RENAMES_TAPS:
        pytest.skip(f"not run: {programs[0].version} gives clones no tap of their own")
    template, clone = short / "template", short / "clone"
    for number, folder in enumerate((template, clone)):
        folder.mkdir()
        namespace.run("ip", "tuntap", "add", f"tap{number}", "mode", "tap")
    slowly = RateLimiter(bandwidth=TokenBucket(size=1 << 20, refill_time=100))
    async with started(programs[0], template, namespace) as (firecracker, _):
        await put_together(firecracker)
        eth0 = NetworkInterface(iface_id="eth0", host_dev_name="tap0", guest_mac="06:00:AC:10:00:02")
        await firecracker.put(eth0)
        with pytest.raises(Refused, match="make the tap"):
            await firecracker.put(NetworkInterface(iface_id="eth1", host_dev_name="tap0"))
        await firecracker.put(MmdsConfig(network_interfaces=("eth0",), ipv4_address="169.254.170.2"))
        await firecracker.start()
        await firecracker.patch(NetworkInterfaceUpdate(iface_id="eth0", rx_rate_limiter=slowly))
        await firecracker.pause()
        await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"), patience=SECONDS)
        for name in ("state", "memory"):
            (clone / name).hardlink_to(template / name)
        # The template goes on, and has its tap.
        async with started(programs[0], clone, namespace) as (cloned, _):
            overrides = (NetworkOverride(iface_id="eth0", host_dev_name="tap1"),)
            load = SnapshotLoad(snapshot_path="state", mem_backend=MEMORY, network_overrides=overrides)
            await cloned.put(load, patience=SECONDS)
            await cloned.resume()
            await ticks(clone)
            namespace.run("ip", "link", "set", "tap1", "up")
            assert "LOWER_UP" in namespace.run("ip", "link", "show", "tap1")  # somebody holds it


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize("broken", ["state", "memory"])
async def test_a_snapshot_that_is_not_whole_is_known(
    programs: tuple[Program, Program], short: Path, broken: str
):
    template, clone = short / "template", short / "clone"
    for folder in (template, clone):
        folder.mkdir()
    async with started(programs[0], template) as (firecracker, _):
        await put_together(firecracker)
        await firecracker.start()
        await firecracker.pause()
        await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"), patience=SECONDS)
    for name in ("state", "memory"):
        whole = (template / name).read_bytes()
        (clone / name).write_bytes(whole[: len(whole) // 2] if name == broken else whole)
    async with started(programs[0], clone) as (firecracker, _):
        with pytest.raises(Refused, match="make the snapshot anew"):
            await firecracker.put(SnapshotLoad(snapshot_path="state", mem_backend=MEMORY), patience=SECONDS)
        await gone(firecracker)


@pytest.mark.root
@pytest.mark.parametrize("new_pid_ns", [False, True])
async def test_a_jailed_one_is_locked_in_and_removed(
    programs: tuple[Program, Program], short: Path, namespace: Namespace, new_pid_ns: bool
):
    program, jailer = programs
    group = usable_group()
    version = 2 if isinstance(group, GroupV2) else 1
    parent = f"martlet-test-{secrets.token_hex(4)}"
    (short / "kernel").write_bytes(kernel())
    (short / "disk").write_bytes(bytes(65536))
    jail = Jail(
        "vm-1",
        short,
        program.path,
        USER,
        USER,
        netns=Path(namespace.path),
        new_pid_ns=new_pid_ns,
        cgroup_version=version,
        parent_cgroup=parent,
        cgroups={} if group is None else limits_as_settings(Limits(1 << 28, 500, 64), version),
        max_open_files=512,
    )
    jail.furnish([Furnishing("kernel", short / "kernel"), Furnishing("disk", short / "disk", writable=True)])
    process = subprocess.Popen(jail.command(jailer.path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        firecracker = await Firecracker.connect(jail.api_socket, SECONDS)
        assert (await firecracker.info()).id == "vm-1"
        await put_together(firecracker)
        pid = (
            int((jail.root / f"{program.path.resolve().name}.pid").read_text()) if new_pid_ns else process.pid
        )
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
        assert Path(f"/proc/{pid}/root").samefile(jail.root)
        assert Path(f"/proc/{pid}/ns/net").samefile(namespace.path)
        assert "Max open files            512 " in Path(f"/proc/{pid}/limits").read_text()
        if group is not None:
            assert group.below(parent).below("vm-1").limits() == Limits(1 << 28, 500, 64)
            assert f"/{parent}/vm-1\n" in Path(f"/proc/{pid}/cgroup").read_text()
    finally:
        process.kill()
        process.wait()
        jail.remove()
        jail.remove()
        assert find_everywhere(Path("/proc/self/mountinfo").read_text()).below(parent).remove()
    assert not jail.folder.exists()
    await gone(firecracker)


@pytest.mark.root
@pytest.mark.timeout(900)
async def test_a_function_runs_in_a_guest_of_its_own(programs: tuple[Program, Program], short: Path):
    monitor = shutil.which(qemu.PROGRAM)
    if monitor is None or not find_kvm(monitor).held:
        pytest.skip("not run with a function: KVM runs no guests here")
    async with microvm_rig(short) as rig:
        instance = await rig.instance(
            "tells",
            source="import os\ndef handle(request): return os.environ['KEY']",
            environment={"KEY": "told"},
        )
        assert await ask(instance) == b"told"
        children = Path(f"/proc/{instance.pid}/task/{instance.pid}/children").read_text().split()
        names = [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
        assert any("firecracker" in name for name in names), names
