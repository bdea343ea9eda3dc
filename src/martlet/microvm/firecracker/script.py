"""What Firecracker is told so that a machine boots, is saved, and goes on in clones.

The documents are made here, where the models hold them to what Firecracker takes. They are said in the sandbox that the
machine runs in (`monitor`), by who has the standard library only: so they travel as plain data.
"""

from __future__ import annotations

from collections.abc import Sequence

from martlet.microvm.firecracker.models import (
    BootSource,
    Drive,
    MachineConfiguration,
    MemoryBackend,
    MmdsConfig,
    NetworkInterface,
    NetworkOverride,
    Put,
    SnapshotCreate,
    SnapshotLoad,
    Vsock,
    VsockOverride,
)
from martlet.microvm.firecracker.monitor import Line, Script
from martlet.sandbox import guest_link

_MIB = 1024 * 1024
_CID = 3
_LINK = "eth0"


def boot(*, kernel: str, initrd: str, words: Sequence[str], root: str, memory: int, vsock: str) -> Script:
    """Returns what starts a machine. All paths are as Firecracker sees them.

    Args:
        kernel: an uncompressed one.
        initrd: the first root.
        words: for the kernel.
        root: the file that it reads its root from.
        memory: bytes, whole MiB.
        vsock: where its socket is made.
    """
    return (
        _line(MachineConfiguration(vcpu_count=1, mem_size_mib=memory // _MIB)),
        _line(BootSource(kernel_image_path=kernel, initrd_path=initrd, boot_args=" ".join(words))),
        _line(Drive(drive_id="root", is_root_device=False, path_on_host=root, is_read_only=True)),
        _line(NetworkInterface(iface_id=_LINK, host_dev_name=guest_link.TAP)),
        _line(MmdsConfig(network_interfaces=(_LINK,))),
        _line(Vsock(guest_cid=_CID, uds_path=vsock)),
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
    )


def save(*, state: str, memory: str) -> Script:
    """Returns what writes a machine that runs to two files; it is paused then."""
    return (
        ("PATCH", "/vm", {"state": "Paused"}),
        _line(SnapshotCreate(snapshot_path=state, mem_file_path=memory)),
    )


def restore(*, state: str, memory: str, tap: str | None = None, vsock: str | None = None) -> Script:
    """Returns what makes a fresh Firecracker a clone, which goes on.

    Args:
        state: the file with all but the memory.
        memory: the file with that, which is mapped copy-on-write.
        tap: the clone's own, where it is not called as the template's was. Firecracker 1.12 or newer.
        vsock: its own socket, likewise. Firecracker 1.16 or newer.
    """
    return (
        _line(
            SnapshotLoad(
                snapshot_path=state,
                mem_backend=MemoryBackend(backend_type="File", backend_path=memory),
                network_overrides=None
                if tap is None
                else (NetworkOverride(iface_id=_LINK, host_dev_name=tap),),
                vsock_override=None if vsock is None else VsockOverride(uds_path=vsock),
                resume_vm=True,
            )
        ),
    )


def _line(document: Put) -> Line:
    return "PUT", document.place(), document.sent()
