"""Starts a machine from its kernel under QEMU, until its agent is ready to take code: what templates are saved from."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from martlet.microvm import qemu
from martlet.microvm.control import CONTROL, LINKS, LOG, Control
from martlet.microvm.kernel import Kernel
from martlet.microvm.machine import MEMORY, MEMORY_FILE, STATE_FILE
from martlet.microvm.qmp import Qmp
from martlet.microvm.store import check_room
from martlet.sandbox.lifeline import die_with_parent

CHANNELS = (CONTROL, LOG, *LINKS)
_SECONDS = 600.0
ACCELERATED_SECONDS = 30.0
"""After that KVM is known not to run this guest; with it that takes a second."""
_LINE = 4096
_WORDS = (
    "quiet",
    "loglevel=0",
    "random.trust_cpu=on",
    "tsc=reliable",
    "no_timer_check",
    "nowatchdog",  # which would wake every idle guest
    "psi=0",  # likewise, and every change of the process costs more with it
    "lsm=lockdown,yama,landlock",  # the others have no rules in a guest, and are asked at every step
    "reboot=t",
    "panic=-1",
    "rcupdate.rcu_expedited=1",
)
_EMULATED_WORDS = ("mitigations=off",)
"""For a processor that is emulated, and of which the guest is the only user."""


class NotStarted(OSError):
    """A machine has not come as far as to be saved."""


@dataclass(frozen=True, slots=True)
class Booted:
    """A machine whose agent is ready.

    Attributes:
        process: its monitor.
        qmp: leads to that.
        work: the folder with its memory.
        patience: seconds that it may take to be saved.
    """

    process: subprocess.Popen[bytes]
    qmp: socket.socket
    work: Path
    patience: float

    def save(self) -> None:
        """Saves and ends it: beside its memory there is its state then. Raises OSError, TimeoutExpired."""
        state = os.open(self.work / STATE_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self.qmp.settimeout(self.patience)
            qemu.save(Qmp(self.qmp), state, self.patience)
            self.process.wait(self.patience)
        finally:
            os.close(state)


@contextmanager
def booted(
    program: str, kernel: Kernel, root: Path, work: Path, network: str | None, *, accelerated: bool
) -> Iterator[Booted]:
    """Starts a machine, and yields it once its agent says that the runtime is warm; ends it afterwards.

    Args:
        program: the path of QEMU.
        kernel: of the guest.
        root: the file that it reads its root from.
        work: a folder that gets its memory, as a file.
        network: as for `qemu.command`.
        accelerated: whether it runs under KVM.

    Raises:
        NotStarted: it was not ready in time, or has ended, then or while it was worked with.
    """
    pairs = {name: socket.socketpair() for name in ("qmp", *CHANNELS)}
    ours, theirs = ({name: pair[end] for name, pair in pairs.items()} for end in (0, 1))
    # Measuring the frequency goes wrong where the processor is emulated.
    told = (f"tsc_early_khz={_frequency()}", *words(accelerated=accelerated))
    patience = ACCELERATED_SECONDS if accelerated else _SECONDS
    command = qemu.command(
        program,
        memory=MEMORY,
        memory_path=str(work / MEMORY_FILE),
        root=str(root),
        control=theirs["qmp"].fileno(),
        channels={name: theirs[name].fileno() for name in CHANNELS},
        network=network,
        boot=qemu.Boot(str(kernel.image), str(kernel.initrd), told),
        accelerated=accelerated,
    )
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[each.fileno() for each in theirs.values()],
            preexec_fn=partial(die_with_parent),
        )
        for each in theirs.values():
            each.close()
        with process:
            try:
                _wait_until_warm(ours[CONTROL], patience)
                yield Booted(process, ours["qmp"], work, patience)
            except (OSError, EOFError, subprocess.TimeoutExpired) as error:
                process.kill()
                check_room(work)  # a monitor ends where there is no room for the memory of the machine
                said = _last_words(process, ours[LOG])
                raise NotStarted(f"the microVM did not start: {said or error}") from error
            finally:
                process.kill()
    finally:
        for each in (*ours.values(), *theirs.values()):
            each.close()


def words(*, accelerated: bool) -> tuple[str, ...]:
    """Returns the words for the kernel that do not depend on the machine."""
    return _WORDS if accelerated else (*_WORDS, *_EMULATED_WORDS)


def _wait_until_warm(control: socket.socket, patience: float) -> None:
    control.settimeout(patience)
    try:
        begun = control.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise OSError(f"its agent was not ready within {patience:g} s") from None
    if not begun:
        raise OSError("it ended")
    Control(control.fileno()).receive()


def _last_words(process: subprocess.Popen[bytes], log: socket.socket) -> str:
    """Returns what the agent has said of its end, or the monitor of its own, which is over."""
    assert process.stderr is not None
    said = process.stderr.read()
    with suppress(OSError):
        said += log.recv(_LINE, socket.MSG_DONTWAIT)
    return said.decode(errors="replace").strip()[-500:]


def _frequency() -> int:
    """Returns the kHz of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return int(next(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")) * 1000)
