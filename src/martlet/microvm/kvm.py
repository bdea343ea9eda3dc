"""Whether KVM runs guests on this machine: it does where one has run.

That `/dev/kvm` opens says little. Where this machine is a virtual one itself, its KVM may take a guest and then
interpret each of its instructions: a kernel seems to hang. So a guest of our own is started, which does what every
kernel does first, and enough of it to show how fast that goes: it enters long mode, takes memory page by page, counts,
and says its word to a device that ends the monitor. That is 30 ms of work for a processor. Who has not done it by the
deadline boots no kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from martlet.microvm.firecracker.probe import KVM, Finding, of_device
from martlet.paths import runtime_path
from martlet.sandbox.lifeline import die_with_parent

FILE = "kvm.json"
"""Where the answer is kept, in the folder that the machine forgets when it starts anew (`runtime_path`)."""
_SECONDS = 3.0
_END_SECONDS = 5.0
_ROM_SIZE = 65_536
_RESET = 0xFFF0
_PORT, _WORD = 0xF4, 0x2A
DONE = _WORD << 1 | 1
"""What QEMU ends with when its guest says its word."""
_PAGES, _COUNTED = 4096, 1 << 25
_GUEST = (
    "fa 2e660f0116 d000"  # real mode, at f000:0000: cli; lgdt cs:[table]
    "0f20c0 0c01 0f22c0 66ea18000f000800"  # cr0 |= PE; jump to protected mode
    "b810000000 8ed8 8ed0"  # ds = ss = data
    "c7050010000003200000 c7050020000003300000"  # page tables at 0x1000 and 0x2000, each with one entry
    "bf00300000 b883000000 b910000000 8907 0500002000 83c708 e2f4"  # and at 0x3000, with 16 pages of 2 MiB
    "0f20e0 0c20 0f22e0 b800100000 0f22d8"  # cr4 |= PAE; cr3 = 0x1000
    "b9800000c0 0f32 fec490 0f30"  # EFER |= LME, which it has not: inc ah
    "0f20c0 0d00000080 0f22c0 ea7e000f001800"  # cr0 |= PG; jump to long mode
    "bf00001000 b9{pages} 48893f 4881c700100000 ffc9 75f2"  # writes to each page from 1 MiB on
    "b9{counted} ffc9 75fc"  # counts down
    "baf4000000 b0{word} ee f4 ebfd"  # says the word, and rests
    "660f1f440000 0000000000000000"  # aligned: the table of segments, of which the first is none
    "ffff0000009acf00 ffff00000092cf00 ffff0000009aaf00"  # code, data, and code of long mode
    "1f00b0000f00"  # the size of the table, and where it is
)


def find(program: str, folder: Path | None = None, device: Path = KVM, seconds: float = _SECONDS) -> Finding:
    """Returns whether guests run under KVM, as a finding whose remedy says what to do where they do not.

    The answer is kept as long as QEMU and the kernel that runs stay what they are: to find it takes 0.2 s where guests
    run, and all of ``seconds`` where they hang.

    Args:
        program: QEMU.
        folder: where the answer is kept; by default `runtime_path`.
        device: of KVM.
        seconds: until the guest must have done its work.
    """
    opened = of_device(device)
    if not opened.held:
        return opened
    key, at = _key(program, device), (folder or runtime_path()) / FILE
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(at.read_text())
        if kept.pop("of") == key:
            return Finding(**kept)
    found = _try(program, opened, seconds)
    _keep(found, key, at)
    return found


def refute(program: str, why: str, folder: Path | None = None, device: Path = KVM) -> None:
    """Keeps that guests do not run under KVM, because one that mattered did not; ``why`` is what was found."""
    _keep(_useless(why), _key(program, device), (folder or runtime_path()) / FILE)


def _try(program: str, opened: Finding, seconds: float) -> Finding:
    with tempfile.NamedTemporaryFile(prefix="martlet-guest-") as rom:
        rom.write(guest())
        rom.flush()
        process = subprocess.Popen(
            command(program, rom.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=partial(die_with_parent),
        )
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return _useless(f"a guest did not get through 30 ms of work within {seconds:g} s{_end(process)}")
    if process.returncode == DONE:
        return replace(opened, found=f"{KVM} runs guests")
    lines = said.decode(errors="replace").strip().splitlines() or [f"it ended with {process.returncode}"]
    return _useless(f"{Path(program).name} runs no guest under it: {lines[-1][-300:]}")


def _end(process: subprocess.Popen[bytes]) -> str:
    """Kills what hangs. Returns words about one that survives that, as it can inside of the kernel."""
    process.kill()
    try:
        process.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        return f", and the process {process.pid} cannot be killed"
    return ""


def _useless(why: str) -> Finding:
    return Finding(
        "KVM",
        False,
        why,
        "use a machine whose KVM is the processor's own (of virtual ones, one with nested virtualization); to have it "
        f"tried again before the next boot, remove {runtime_path() / FILE}",
    )


def guest() -> bytes:
    """Returns the guest, as the firmware that a processor starts with."""
    numbers = {"pages": _PAGES.to_bytes(4, "little").hex(), "counted": _COUNTED.to_bytes(4, "little").hex()}
    code = bytes.fromhex(_GUEST.format(word=f"{_WORD:02x}", **numbers))
    start = b"\xe9" + (-(_RESET + 3) & 0xFFFF).to_bytes(2, "little")  # jmp 0
    return (code.ljust(_RESET, b"\0") + start).ljust(_ROM_SIZE, b"\0")


def command(program: str, rom: str, accelerator: str = "kvm") -> list[str]:
    """Returns the command line of a monitor that runs the guest in a file."""
    line = [program, "-M", "microvm,acpi=off,isa-serial=off,x-option-roms=off", "-accel", accelerator]
    line += ["-m", "32", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", rom]
    return [*line, "-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"]


def _keep(found: Finding, key: str, at: Path) -> None:
    work = at.with_name(f".{FILE}-{secrets.token_hex(8)}")
    try:
        at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        work.write_text(json.dumps({"of": key} | asdict(found)))
        work.rename(at)
    except OSError:  # the disk is full, say: it is found out again next time
        with suppress(OSError):
            work.unlink(missing_ok=True)


def _key(program: str, device: Path) -> str:
    """Returns what the answer depends on: this boot of this kernel, the device, QEMU, and the guest."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    file = os.stat(program)
    parts = (boot, os.uname().release, os.stat(device).st_rdev, program, file.st_size, file.st_mtime_ns)
    return hashlib.sha256(f"{parts}".encode() + guest()).hexdigest()
