"""Whole conversations with a Firecracker: boot, metadata, snapshot, clones; and what is refused when."""

import asyncio
import json
from pathlib import Path

import pytest

from martlet.microvm.firecracker import mmds, vsock
from martlet.microvm.firecracker.client import Firecracker
from martlet.microvm.firecracker.errors import BadAnswer, NoAnswer, Refused
from martlet.microvm.firecracker.models import (
    Balloon,
    BalloonStatsUpdate,
    BalloonUpdate,
    BootSource,
    CpuConfig,
    CpuidLeaf,
    CpuidRegister,
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
    Put,
    RateLimiter,
    SnapshotCreate,
    SnapshotLoad,
    TokenBucket,
    Vsock,
    VsockOverride,
)
from tests.fake_firecracker import MMDS_LIMIT, FakeFirecracker, fake_firecracker

pytestmark = pytest.mark.anyio

AGENT = 1024
SLOWLY = RateLimiter(bandwidth=TokenBucket(size=1 << 20, refill_time=100, one_time_burst=1 << 24))
MEMORY = MemoryBackend(backend_type="File", backend_path="memory")
TEMPLATE: tuple[Put, ...] = (
    Logger(log_path="log", level="Warning", show_level=True),
    Metrics(metrics_path="metrics"),
    BootSource(kernel_image_path="vmlinux", boot_args="quiet", initrd_path="initrd"),
    MachineConfiguration(vcpu_count=2, mem_size_mib=128, smt=False, huge_pages="None"),
    CpuConfig(
        kvm_capabilities=("!121",),
        cpuid_modifiers=(
            CpuidLeaf(
                leaf="0x1",
                subleaf="0x0",
                flags=0,
                modifiers=(CpuidRegister(register_name="ecx", bitmap="0b" + "x" * 31 + "0"),),
            ),
        ),
    ),
    Drive(drive_id="root", is_root_device=True, path_on_host="root", is_read_only=True, io_engine="Sync"),
    Drive(drive_id="code", is_root_device=False, path_on_host="code", is_read_only=True, rate_limiter=SLOWLY),
    NetworkInterface(
        iface_id="eth0", host_dev_name="tap0", guest_mac="06:00:AC:10:00:02", rx_rate_limiter=SLOWLY
    ),
    Vsock(guest_cid=3, uds_path="v.sock"),
    MmdsConfig(network_interfaces=("eth0",), ipv4_address="169.254.169.254"),
    Balloon(amount_mib=8, deflate_on_oom=True, stats_polling_interval_s=1),
    EntropyDevice(rate_limiter=SLOWLY),
)
FILES = ("vmlinux", "initrd", "root", "code", "log", "metrics")


class Line(asyncio.Protocol):
    """Collects what comes until a line is complete."""

    def __init__(self) -> None:
        self.received = b""
        self.line: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"\n" in self.received and not self.line.done():
            self.line.set_result(self.received)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.line.done():
            self.line.set_exception(ConnectionResetError())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)


def furnish(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (root / name).touch()


async def boot(fake: FakeFirecracker) -> Firecracker:
    furnish(fake.root)
    fake.listeners[AGENT] = echo
    firecracker = await Firecracker.connect(fake.api_socket)
    for each in TEMPLATE:
        await firecracker.put(each)
    await firecracker.start()
    return firecracker


async def said_by_guest(path: Path) -> bytes:
    transport, line = await vsock.connect(path, AGENT, Line, timeout=60)
    transport.write(b"ping\n")
    try:
        return await asyncio.wait_for(line.line, 60)
    finally:
        transport.close()


def read(fake: FakeFirecracker, token: str) -> mmds.Metadata:
    return mmds.read(token, address="127.0.0.1", port=fake.metadata_port)


async def test_a_template_boots_is_saved_and_cloned(tmp_path: Path):
    async with fake_firecracker(tmp_path / "template") as template:
        firecracker = await boot(template)
        assert (await firecracker.info()).state == "Running"
        assert await said_by_guest(template.vsock) == b"ping\n"
        await firecracker.pause()
        assert (await firecracker.info()).state == "Paused"
        await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"), patience=60)

        for number in (1, 2):
            async with fake_firecracker(tmp_path / f"clone{number}") as clone:
                clone.listeners[AGENT] = echo
                for name in ("state", "memory"):
                    (clone.root / name).hardlink_to(template.root / name)
                cloned = await Firecracker.connect(clone.api_socket)
                await cloned.put(Logger(log_path="../template/log"))
                await cloned.put(
                    SnapshotLoad(
                        snapshot_path="state",
                        mem_backend=MEMORY,
                        resume_vm=True,
                        network_overrides=(NetworkOverride(iface_id="eth0", host_dev_name=f"tap{number}"),),
                        vsock_override=VsockOverride(uds_path=f"v{number}.sock"),
                    )
                )
                metadata = mmds.Metadata(f"token {number}", {"NUMBER": str(number)}, {"KEY": "ключ"})
                await cloned.put_mmds(metadata.store())

                assert (await cloned.info()).state == "Running"
                assert (await cloned.machine_config()).vcpu_count == 2
                assert clone.configured["/network-interfaces/eth0"]["host_dev_name"] == f"tap{number}"
                assert clone.vsock == clone.root / f"v{number}.sock"
                assert await said_by_guest(clone.vsock) == b"ping\n"
                assert await asyncio.to_thread(read, clone, f"token {number}") == metadata


async def test_what_changes_while_the_guest_runs(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        await firecracker.patch(BalloonUpdate(amount_mib=16))
        await firecracker.patch(BalloonStatsUpdate(stats_polling_interval_s=3))
        await firecracker.patch(DriveUpdate(drive_id="code", path_on_host="root"))
        await firecracker.patch(NetworkInterfaceUpdate(iface_id="eth0", tx_rate_limiter=SLOWLY))
        await firecracker.flush_metrics()
        await firecracker.send_ctrl_alt_del()

        balloon = await firecracker.balloon()
        assert balloon == Balloon(amount_mib=16, deflate_on_oom=True, stats_polling_interval_s=3)
        statistics = await firecracker.balloon_stats()
        assert (statistics.target_mib, statistics.free_memory, statistics.oom_kill) == (16, 1 << 20, None)
        assert fake.configured["/drives/code"]["path_on_host"] == "root"
        assert (
            fake.configured["/network-interfaces/eth0"]["tx_rate_limiter"]["bandwidth"]["refill_time"] == 100
        )


async def test_metadata_is_for_the_guest_with_the_boot_token_only(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        with pytest.raises(mmds.MetadataError, match="no metadata for this guest yet"):
            await asyncio.to_thread(read, fake, "mine")

        await firecracker.put_mmds(mmds.Metadata("mine", {"A": "1"}, {"KEY": "hidden"}).store())
        assert await firecracker.version() == "1.17.0-dev"
        assert (await asyncio.to_thread(read, fake, "mine")).secrets == {"KEY": "hidden"}
        with pytest.raises(mmds.NotYours):
            await asyncio.to_thread(read, fake, "another's")

        await firecracker.patch_mmds({"martlet": {"environment": {"A": None, "B": "2"}}})
        assert (await asyncio.to_thread(read, fake, "mine")).environment == {"B": "2"}
        assert (await firecracker.mmds())["martlet"]["environment"] == {"B": "2"}


async def test_metadata_over_the_limit_is_refused_without_showing_any_of_it(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await Firecracker.connect(fake.api_socket)
        whole = {"a": "s3cret" * 8531}
        assert len(json.dumps(whole, separators=(",", ":"))) <= MMDS_LIMIT
        await firecracker.put_mmds(whole)

        with pytest.raises(Refused, match="--http-api-max-payload-size") as over:
            await firecracker.put_mmds({"a": "s3cret" * 9000})
        assert "s3cret" not in str(over.value)
        with pytest.raises(Refused, match="--mmds-size-limit") as more:
            await firecracker.patch_mmds({"b": "more" * 100})
        assert more.value.status == 413
        assert await firecracker.mmds() == whole


async def test_what_belongs_before_the_boot_is_refused_after_it(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        load = SnapshotLoad(snapshot_path="state", mem_backend=MEMORY)
        for each in (*TEMPLATE, load):
            with pytest.raises(Refused, match="do this before the microVM starts"):
                await firecracker.put(each)
        with pytest.raises(Refused, match="after starting"):
            await firecracker.start()


async def test_what_belongs_after_the_boot_is_refused_before_it(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await Firecracker.connect(fake.api_socket)
        assert (await firecracker.info()).state == "Not started"
        assert (await firecracker.machine_config()).mem_size_mib == 128
        for call in (
            firecracker.pause(),
            firecracker.resume(),
            firecracker.flush_metrics(),
            firecracker.send_ctrl_alt_del(),
            firecracker.balloon_stats(),
            firecracker.patch(BalloonUpdate(amount_mib=1)),
            firecracker.patch(DriveUpdate(drive_id="code", path_on_host="root")),
            firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory")),
        ):
            with pytest.raises(Refused, match="start the microVM, or load a snapshot, first") as refused:
                await call
            assert refused.value.status == 400
            assert "not supported before starting" in refused.value.fault


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        (BootSource(kernel_image_path="missing"), "a path that exists where Firecracker looks"),
        (MmdsConfig(network_interfaces=("eth1",)), "compare what was sent"),
    ],
)
async def test_a_refusal_says_what_to_do(tmp_path: Path, what: Put, remedy: str):
    async with fake_firecracker(tmp_path) as fake:
        with pytest.raises(Refused, match=f"What to do: .*{remedy}"):
            await Firecracker(fake.api_socket).put(what)


async def test_a_snapshot_is_of_a_paused_guest_and_for_a_fresh_firecracker(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        with pytest.raises(Refused, match="pause the microVM first"):
            await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"))
    async with fake_firecracker(tmp_path / "other") as fake:
        firecracker = await Firecracker.connect(fake.api_socket)
        await firecracker.put(MachineConfiguration(vcpu_count=1, mem_size_mib=64))
        with pytest.raises(Refused, match="a Firecracker that has just started"):
            await firecracker.put(SnapshotLoad(snapshot_path="state", mem_backend=MEMORY))
        assert not fake.ended


@pytest.mark.parametrize(
    ("broken", "words"),
    [("state", "make the snapshot anew"), ("memory", "a path that exists"), ("v.sock", "remove the socket")],
)
async def test_a_clone_that_cannot_be_made_ends_its_firecracker(tmp_path: Path, broken: str, words: str):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        await firecracker.pause()
        await firecracker.put(SnapshotCreate(snapshot_path="state", mem_file_path="memory"))
    match broken:
        case "state":
            (tmp_path / "state").write_bytes(b"\0not a snapshot")
        case "memory":
            (tmp_path / "memory").unlink()
    if broken != "v.sock":
        (tmp_path / "v.sock").unlink(missing_ok=True)
    else:
        (tmp_path / "v.sock").touch()
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await Firecracker.connect(fake.api_socket)
        with pytest.raises(Refused, match=words):
            await firecracker.put(SnapshotLoad(snapshot_path="state", mem_backend=MEMORY))
        assert fake.ended
        with pytest.raises(NoAnswer, match="start another"):
            await firecracker.info()


async def test_vsock_reaches_what_listens_in_the_guest_and_nothing_else(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        firecracker = await boot(fake)
        assert await said_by_guest(fake.vsock) == b"ping\n"
        with pytest.raises(NoAnswer, match="nobody listens at port 7 of the guest"):
            await vsock.connect(fake.vsock, 7, Line, timeout=5)

        await firecracker.pause()
        with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
            await vsock.connect(fake.vsock, AGENT, Line, timeout=0.05)
        await firecracker.resume()
        assert await said_by_guest(fake.vsock) == b"ping\n"


async def test_vsock_hands_over_what_the_guest_says_first(tmp_path: Path):
    async def hasty(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"OK 5\nhello\n")  # in one piece with the greeting
        await writer.drain()

    async with fake_firecracker(tmp_path) as fake:
        await boot(fake)
        fake.listeners[5] = hasty
        transport, line = await vsock.connect(fake.vsock, 5, Line, timeout=60)
        assert await line.line == b"OK 5\nhello\n"
        transport.close()


async def test_the_guest_reaches_ports_of_the_host(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        await boot(fake)
        vsock.from_guest(fake.vsock, 52).touch()  # as a former life leaves its socket
        lines: list[Line] = []

        def accept() -> Line:
            lines.append(Line())
            return lines[-1]

        server = await vsock.listen(fake.vsock, 52, accept)
        _, writer = await fake.connect_to_host(52)
        writer.write(b"ready\n")
        async with asyncio.timeout(60):
            while not lines:
                await asyncio.sleep(0.005)
            assert await lines[0].line == b"ready\n"
        writer.close()
        server.close()
        with pytest.raises(ValueError, match="not a port"):
            vsock.from_guest(fake.vsock, 2**32 - 1)


async def test_another_socket_is_not_taken_for_a_vsock(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        with pytest.raises((BadAnswer, NoAnswer)):
            await vsock.connect(fake.api_socket, AGENT, Line, timeout=0.2)
    with pytest.raises(NoAnswer, match="does not take connections"):
        await vsock.connect(tmp_path / "nothing", AGENT, Line, timeout=5)
