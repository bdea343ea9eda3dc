"""What Firecracker is told and answers, as frozen types; names, units and defaults are those of its API.

A member that is None is not sent: Firecracker refuses members that its version does not know, so that only what is
asked for can be too new. A value that Firecracker would refuse is refused here, with the name of the member.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

_Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]+\z")]
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+\z")]
"""What stands in a path of the API."""
_Link = Annotated[str, StringConstraints(pattern=r"^[!-.0-~]{1,15}\z")]
"""The name of a network device of the host, without the slash."""
_Mac = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\z")]
_Long = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Word = Annotated[int, Field(ge=0, le=2**32 - 1)]
_Number = Annotated[str, StringConstraints(pattern=r"^(0x[0-9A-Fa-f]{1,16}|0b[01]{1,64}|[0-9]{1,19})\z")]


class Document(BaseModel):
    """A value of the API. Sent documents have no members but their own.

    What checks them is made when it is needed first: every process of a platform imports them, and few make a machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Placed(Document):
    """A document that has a place, ``path``, in whose braces its own members stand."""

    path: ClassVar[str]

    def place(self) -> str:
        """Returns the path that it is sent to."""
        return self.path.format_map({name: getattr(self, name) for name in type(self).model_fields})

    def sent(self) -> dict[str, Any]:
        """Returns the document as it is sent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Put(Placed):
    """A document that is put, whole."""


class Patch(Placed):
    """A document that changes what is there; a member that is None leaves it as it is."""


class Answer(BaseModel):
    """What Firecracker says; a newer one may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)


class TokenBucket(Document):
    """``size`` tokens, filled anew in ``refill_time`` ms, after ``one_time_burst`` further ones have been used up."""

    size: _Long
    refill_time: _Long
    one_time_burst: _Long | None = None


class RateLimiter(Document):
    """Bounds of a device: ``bandwidth`` counts bytes, ``ops`` counts operations."""

    bandwidth: TokenBucket | None = None
    ops: TokenBucket | None = None


class BootSource(Put):
    """The kernel (an uncompressed ELF image on x86_64), its command line, and the first files it sees."""

    path = "/boot-source"

    kernel_image_path: _Text
    boot_args: _Text | None = None
    initrd_path: _Text | None = None


class Drive(Put):
    """A block device: a file of the host, or the socket of a vhost-user backend."""

    path = "/drives/{drive_id}"

    drive_id: _Id
    is_root_device: bool
    path_on_host: _Text | None = None
    is_read_only: bool | None = None
    partuuid: _Text | None = None
    cache_type: Literal["Unsafe", "Writeback"] | None = None
    rate_limiter: RateLimiter | None = None
    io_engine: Literal["Sync", "Async"] | None = None
    socket: _Text | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.path_on_host is None) == (self.socket is None):
            raise ValueError("a drive has a path_on_host or a socket: give one of them")
        if self.path_on_host is not None and self.is_read_only is None:
            raise ValueError("is_read_only: say whether the guest may write to the file of the drive")
        backed = (self.is_read_only, self.rate_limiter, self.io_engine)
        if self.socket is not None and backed != (None, None, None):
            raise ValueError(
                "a drive with a socket has no is_read_only, rate_limiter or io_engine: its backend decides"
            )
        return self


class DriveUpdate(Patch):
    """What of a drive may change while the guest runs."""

    path = "/drives/{drive_id}"

    drive_id: _Id
    path_on_host: _Text | None = None
    rate_limiter: RateLimiter | None = None


class MachineConfiguration(Put):
    """The size of the guest; ``vcpu_count`` is 1 or even with ``smt``."""

    path = "/machine-config"

    vcpu_count: Annotated[int, Field(ge=1, le=32)]
    mem_size_mib: Annotated[int, Field(ge=1, le=2**31)]
    smt: bool | None = None
    track_dirty_pages: bool | None = None
    huge_pages: Literal["None", "Transparent", "2M"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.smt and self.vcpu_count != 1 and self.vcpu_count % 2:
            raise ValueError("vcpu_count: with smt it is 1 or an even number")
        if self.huge_pages == "2M" and self.mem_size_mib % 2:
            raise ValueError("mem_size_mib: with huge pages of 2M it is a multiple of 2")
        return self


def _bitmap(bits: int) -> object:
    return StringConstraints(pattern=rf"^0b[01x_]{{1,{2 * bits}}}\z")


class CpuidRegister(Document):
    """Bits of one register of a CPUID leaf: ``0b``, then 32 of 0, 1 and x (as it is)."""

    register_name: Annotated[Literal["eax", "ebx", "ecx", "edx"], Field(serialization_alias="register")]
    bitmap: Annotated[str, _bitmap(32)]


class CpuidLeaf(Document):
    """What the guest is told by one CPUID leaf (x86_64)."""

    leaf: _Number
    subleaf: _Number
    flags: Annotated[int, Field(ge=0, le=2**31 - 1)]
    modifiers: tuple[CpuidRegister, ...]


class Msr(Document):
    """Bits of one model-specific register (x86_64)."""

    addr: _Number
    bitmap: Annotated[str, _bitmap(64)]


class ArmRegister(Document):
    """Bits of one register (aarch64)."""

    addr: _Number
    bitmap: Annotated[str, _bitmap(128)]


class VcpuFeatures(Document):
    """Bits of the features that a CPU is made with (aarch64)."""

    index: Annotated[int, Field(ge=0, le=2**31 - 1)]
    bitmap: Annotated[str, _bitmap(32)]


class CpuConfig(Put):
    """What the CPUs of the guest have of the host's, so that snapshots run on more than one kind of machine."""

    path = "/cpu-config"

    kvm_capabilities: tuple[Annotated[str, StringConstraints(pattern=r"^!?[0-9]{1,9}\z")], ...] | None = None
    cpuid_modifiers: tuple[CpuidLeaf, ...] | None = None
    msr_modifiers: tuple[Msr, ...] | None = None
    reg_modifiers: tuple[ArmRegister, ...] | None = None
    vcpu_features: tuple[VcpuFeatures, ...] | None = None


class NetworkInterface(Put):
    """A network device of the guest, and the tap of the host that it is."""

    path = "/network-interfaces/{iface_id}"

    iface_id: _Id
    host_dev_name: _Link
    guest_mac: _Mac | None = None
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = None
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class NetworkInterfaceUpdate(Patch):
    """What of a network device may change while the guest runs."""

    path = "/network-interfaces/{iface_id}"

    iface_id: _Id
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class Vsock(Put):
    """The socket device: the guest's number, and the unix socket that stands for it on the host (see `vsock`)."""

    path = "/vsock"

    guest_cid: Annotated[int, Field(ge=3, le=2**32 - 1)]
    uds_path: _Text


class MmdsConfig(Put):
    """Where the guest reads its metadata: by these network devices, at this address."""

    path = "/mmds/config"

    network_interfaces: Annotated[tuple[_Id, ...], Field(min_length=1)]
    version: Literal["V2"] = "V2"
    """V1 hands everything to whoever can make the guest send one request, and is deprecated."""
    ipv4_address: str | None = None
    imds_compat: bool | None = None

    @model_validator(mode="after")
    def _link_local(self) -> Self:
        if self.ipv4_address is None:
            return self
        try:
            third = IPv4Address(self.ipv4_address).packed[2]
            good = IPv4Address(self.ipv4_address).is_link_local and 1 <= third <= 254
        except ValueError:
            good = False
        if not good:
            raise ValueError("ipv4_address: an address from 169.254.1.0 to 169.254.254.255")
        return self


class Balloon(Put):
    """Memory that is taken from the guest and given back to the host."""

    path = "/balloon"

    amount_mib: _Word
    deflate_on_oom: bool
    stats_polling_interval_s: Annotated[int, Field(ge=0, le=65535)] | None = None
    free_page_hinting: bool | None = None
    free_page_reporting: bool | None = None


class BalloonUpdate(Patch):
    """Another size of the balloon."""

    path = "/balloon"

    amount_mib: _Word


class BalloonStatsUpdate(Patch):
    """Another interval of statistics, which were asked for when the balloon was made."""

    path = "/balloon/statistics"

    stats_polling_interval_s: Annotated[int, Field(ge=1, le=65535)]


class BalloonStats(Answer):
    """What the guest says of its memory, in bytes or counts, as far as it says anything."""

    target_pages: int
    actual_pages: int
    target_mib: int
    actual_mib: int
    swap_in: int | None = None
    swap_out: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    free_memory: int | None = None
    total_memory: int | None = None
    available_memory: int | None = None
    disk_caches: int | None = None
    hugetlb_allocations: int | None = None
    hugetlb_failures: int | None = None
    oom_kill: int | None = None
    alloc_stall: int | None = None
    async_scan: int | None = None
    direct_scan: int | None = None
    async_reclaim: int | None = None
    direct_reclaim: int | None = None


class Logger(Put):
    """Where Firecracker writes what happens: a file or named pipe that is there already."""

    path = "/logger"

    log_path: _Text | None = None
    level: Literal["Error", "Warning", "Info", "Debug", "Trace", "Off"] | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: _Text | None = None


class Metrics(Put):
    """Where Firecracker writes its counters, a line of JSON each minute: a file or named pipe that is there already."""

    path = "/metrics"

    metrics_path: _Text
    emit_id: bool | None = None
    properties: dict[str, str] | None = None


class EntropyDevice(Put):
    """A source of random numbers for the guest."""

    path = "/entropy"

    rate_limiter: RateLimiter | None = None


class SnapshotCreate(Put):
    """Where the state and the memory of a paused microVM are written."""

    path = "/snapshot/create"

    snapshot_path: _Text
    mem_file_path: _Text
    snapshot_type: Literal["Full", "Diff"] | None = None


class MemoryBackend(Document):
    """Where the memory of a clone comes from: a file, mapped copy-on-write, or a process that answers page faults."""

    backend_type: Literal["File", "Uffd"]
    backend_path: _Text


class NetworkOverride(Document):
    """Another tap for a network device of a clone. Firecracker 1.12 or newer."""

    iface_id: _Id
    host_dev_name: _Link


class VsockOverride(Document):
    """Another socket for the vsock device of a clone. Firecracker 1.16 or newer."""

    uds_path: _Text


class SnapshotLoad(Put):
    """What a fresh Firecracker becomes a clone of."""

    path = "/snapshot/load"

    snapshot_path: _Text
    mem_backend: MemoryBackend
    track_dirty_pages: bool | None = None
    resume_vm: bool | None = None
    network_overrides: tuple[NetworkOverride, ...] | None = None
    vsock_override: VsockOverride | None = None
    clock_realtime: bool | None = None
    huge_pages: Literal["Snapshot", "None", "Transparent", "2M"] | None = None

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        if self.huge_pages == "2M" and self.mem_backend.backend_type != "Uffd":
            raise ValueError("huge_pages: 2M takes a mem_backend of type Uffd")
        return self


class InstanceInfo(Answer):
    """What runs here, and how far it has come."""

    id: str
    app_name: str
    vmm_version: str
    state: Literal["Not started", "Running", "Paused"]


class FirecrackerVersion(Answer):
    """Firecracker's version."""

    firecracker_version: str
