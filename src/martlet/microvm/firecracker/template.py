"""How Firecracker makes a template: a machine is booted, waited for, and saved, by scripts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from martlet.microvm.control import CONTROL, VSOCK_PORTS, Control
from martlet.microvm.firecracker import script
from martlet.microvm.firecracker.errors import FirecrackerError
from martlet.microvm.firecracker.machine import API, VSOCK, command
from martlet.microvm.firecracker.monitor import Monitor
from martlet.microvm.firecracker.probe import NEXT_MAJOR, PROGRAM, Finding, Version, probe
from martlet.microvm.machine import MEMORY, MEMORY_FILE, PLACE, ROOT_FILE, SCRIPT_FILE, STATE_FILE
from martlet.sandbox import guest_link, syscalls
from martlet.sandbox.lifeline import die_with_parent
from martlet.sandbox.syscalls import Clone

OLDEST = Version(1, 8, 0)
"""The first that describes its devices by ACPI, as Debian's kernel wants them described."""


@dataclass(frozen=True, slots=True)
class Firecracker:
    """The program, and its version."""

    program: Path
    version: Version


def find() -> Firecracker | None:
    """Returns the Firecracker that this machine has, where that runs our guests."""
    program = probe().firecracker
    if program is None or program.version is None or not OLDEST <= program.version < NEXT_MAJOR:
        return None
    return Firecracker(program.path.resolve(), program.version)


def finding() -> Finding:
    """Returns what there is to say of Firecracker on this machine, and what to do."""
    said = next(each for each in probe().findings if each.what == PROGRAM)
    if said.held and find() is None:
        why = f"{said.found}, does not describe devices as guests need it"
        return Finding(PROGRAM, False, why, f"install {OLDEST} or newer")
    return said


def make(
    program: Path,
    kernel: Path,
    initrd: Path,
    words: Sequence[str],
    work: Path,
    patience: float,
    enter: Callable[[], None] | None = None,
) -> None:
    """Boots a machine, and saves it once its agent says that the runtime is warm.

    Args:
        program: Firecracker.
        kernel: an uncompressed one.
        initrd: the first root.
        words: for the kernel.
        work: the folder that has the root, and gets what is saved.
        patience: seconds that each step may take.
        enter: is called in the process that becomes Firecracker; by default it makes a network of its own with a tap.

    Raises:
        OSError: the machine did not start, or could not be saved; the message says why.
    """
    with ExitStack() as stack:
        log = stack.enter_context((work / "log").open("w+b"))
        folder = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        process = stack.enter_context(
            subprocess.Popen(
                command(str(program)),
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(_enter, enter or _make_network),
            )
        )
        stack.callback(process.kill)
        at = f"/proc/self/fd/{folder}"  # the path of the folder may be too long for sockets
        try:
            _boot_and_save(Monitor(f"{at}/{API}", f"{at}/{VSOCK}", patience), kernel, initrd, words, patience)
        except (FirecrackerError, OSError, EOFError) as error:
            log.seek(0)
            said = log.read()[-500:].decode(errors="replace").strip()
            raise OSError(f"{error}{said and f' ({said})'}") from error
    for left in (API, VSOCK, "log"):
        (work / left).unlink(missing_ok=True)
    restored = script.restore(state=f"{PLACE}/{STATE_FILE}", memory=f"{PLACE}/{MEMORY_FILE}")
    (work / SCRIPT_FILE).write_text(json.dumps(restored))


def _boot_and_save(
    monitor: Monitor, kernel: Path, initrd: Path, words: Sequence[str], patience: float
) -> None:
    monitor.play(
        script.boot(
            kernel=str(kernel), initrd=str(initrd), words=words, root=ROOT_FILE, memory=MEMORY, vsock=VSOCK
        )
    )
    with ExitStack() as stack:
        ports = {name: stack.enter_context(monitor.connect(port)) for name, port in VSOCK_PORTS.items()}
        control = ports[CONTROL]
        control.settimeout(patience)
        if not control.recv(1, socket.MSG_PEEK):  # the agent has something to say, or has ended
            raise EOFError("the agent of the guest has ended")
        Control(control.fileno()).receive()
        monitor.play(script.save(state=STATE_FILE, memory=MEMORY_FILE))


def _enter(enter: Callable[[], None]) -> None:
    die_with_parent()
    enter()


def _make_network() -> None:
    syscalls.unshare(Clone.NETWORK)
    guest_link.make_alone()
