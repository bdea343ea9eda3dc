"""What runs a guest: its first process. It warms the runtime, and then lives in every clone of the machine.

What is done before ``warm`` is said, all clones share. A clone that is woken gets entropy and time of its own before
anything else. A runtime that runs functions itself, or starts a program with the code, waits for that in the saved
machine already: it draws random numbers only once it has code. A program that is started before, and of which we cannot
know that, is started in the clone. The cell confines itself as a container does (`sandbox.inside`), under a user of its
own and in a cgroup of the guest, of which it sees little (`view`); one that waits in the saved machine has done so
there, and gets its limits from the agent.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NoReturn

from martlet.microvm import memory, practice, view
from martlet.microvm.control import CONTROL, LINKS, LOG, Control
from martlet.microvm.links import Interests, Link
from martlet.microvm.ports import Ports, open_ports
from martlet.microvm.resident import Resident
from martlet.sandbox import guest_link, privileges, rlimits, root
from martlet.sandbox.bundle import SANDBOX
from martlet.sandbox.inside import Inside, Task
from martlet.sandbox.namespaces import PidNamespaces

TASK = "task.json"
"""The file, in the folder of the sandbox, that says what the guest is to do."""
USER = 1000
RESOLVERS = "/run/resolv.conf"
"""Where the link at ``/etc/resolv.conf`` leads, for the cell."""
_SOCKET, _LOG = f"{view.RUN}/sock", f"{view.RUN}/log"
_OTHER_SOCKET = f"{view.RUN}/other"
_LIMITS = {"memory": "memory.max", "processes": "pids.max"}
_NO_LIMITS = dict.fromkeys(_LIMITS, "max") | {"scratch": view.SCRATCH}
_LINE = 4096
_LOOK_AGAIN = 0.02
_IDLE_SECONDS = 0.25
"""How long a clone waits for its code, on a busy machine, before it takes itself for one that stands ready."""
_PRACTISED_SECONDS = 0.1
"""After which a cell practises (`reception`), as long as nobody asks it for anything."""
_LAST_WORDS_SECONDS = 1.0
_ADD_ENTROPY, _RESEED = 0x40085203, 0x5207
_AGENTS_CPU, _CELLS_CPU = 0, 1
"""Where the guest has two processors (`qemu.EMULATED_CPUS`)."""


class Agent:
    """See the module."""

    def __init__(self, task: Task, device: Ports) -> None:
        self._task = task
        self._device = device
        self._ports = device.descriptors
        self._control = Control(self._ports[CONTROL])
        self._inside = Inside(task.own_kernel)
        sys.path.insert(0, task.module_folder)
        self._module: Any = importlib.import_module(task.module)
        sys.path.remove(task.module_folder)
        self._last_capability = privileges.last_capability()
        self._interests = Interests()
        self._cell = Resident(_SOCKET)
        self._links = [
            Link(self._ports[name], self._interests, lambda: self._cell.connect()) for name in LINKS
        ]
        self._unsaid = b""
        self._early = task.program is None or task.program.cell == "cold"
        self._practice: bytes | None = None
        self._awake = False
        os.mkfifo(_LOG)
        os.chmod(_LOG, 0o622)  # noqa: S103  (the cell opens /dev/stdout as whoever it is then)
        self._log = os.open(_LOG, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(self._ports[LOG], False)
        self._limits = {
            limit: os.open(f"{view.GROUP}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            for limit, file in _LIMITS.items()
        }
        self._usual: dict[str, Any] = task.usual or _NO_LIMITS
        self._limited: dict[str, Any] = dict(_NO_LIMITS)

    def warm(self) -> None:
        """Does what all clones share, and returns in each of them."""
        known = {**sys.modules}
        self._module.warm()
        sys.modules.update(known)  # of which a runtime forgets what is none of a function's business
        gc.collect()
        gc.freeze()
        if self._early:
            self._start(memory.own)
            practice.ask_health(_SOCKET)
            time.sleep(_PRACTISED_SECONDS)
            practice.ask_health(_SOCKET)
        self._practice = practice.stream()
        self._rehearse(self._practice)
        self._listen()
        self._random = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
        memory.own()
        self._control.send(event="warm")
        self._renew()

    def _listen(self) -> None:
        """Makes ready what `run` needs."""
        self._wakeup, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._interests.watch(self._wakeup, select.EPOLLIN)
        self._interests.watch(self._control.descriptor, select.EPOLLIN)
        self._watch_log()

    def run(self) -> None:
        """Carries what concerns the cell, until it has ended, and says how it has."""
        ended, deadline = self._reap(None), 0.0
        while ended is None or (time.monotonic() < deadline and not self._has_said_all()):
            self._watch_log()
            happened = self._interests.events.poll(self._patience() if ended is None else _LOOK_AGAIN)
            if not happened and ended is None:
                self._practise()
            for descriptor, event in happened:
                if descriptor == self._wakeup:
                    os.read(self._wakeup, _LINE)
                    ended = self._reap(ended)
                    deadline = time.monotonic() + _LAST_WORDS_SECONDS
                elif descriptor == self._control.descriptor:
                    self._heed()
                elif descriptor in (self._log, self._ports[LOG]):
                    self._say()
                else:
                    self._serve(descriptor, event)
        events = dict(line.split() for line in Path(view.GROUP, "memory.events").read_text().splitlines())
        self._control.send(event="exited", code=ended, oom_kills=int(events["oom_kill"]))

    def _patience(self) -> float | None:
        """Returns the seconds after which this clone seems to be one that waits for its code."""
        return None if self._practice is None or not self._awake else _IDLE_SECONDS

    def _practise(self) -> None:
        """Goes the way of taking code and of running it, while nobody waits: an emulator translates what runs first.

        What it has translated for this process it has for the cell too, whose programs and libraries are the same.
        """
        if self._practice is not None:
            self._rehearse(self._practice)
            self._practice = None
            getattr(self._module, "practise", self._module.warm)()

    def _rehearse(self, stream: bytes) -> None:
        """Goes the way of taking code; before the machine is saved, too: what that reads and loads, no clone has to.

        A cell waits with the limits of most functions, which then have to change nothing. A program that has still to
        start has none: what it takes for that is not the function's.
        """
        practice.take(stream)
        for limits in (_NO_LIMITS, self._usual, self._usual if self._early else _NO_LIMITS):
            self._limit(limits)
        socket.sethostname(socket.gethostname())
        if self._early:  # a limit that it has already
            kind = resource.RLIMIT_NOFILE
            resource.prlimit(self._cell.pid, kind, resource.prlimit(self._cell.pid, kind))

    def _renew(self) -> None:
        if self._device.renew():
            self._interests.renew()
            for name in (LOG, *LINKS):
                os.set_blocking(self._ports[name], False)

    def _join(self, network: dict[str, str] | None) -> None:
        if network is not None:
            guest_link.join(IPv4Address(network["address"]))
            Path(view.SHOWN, Path(RESOLVERS).name).write_text(network["resolvers"])

    def _rehearse_living(self) -> None:
        """Has another cell take the place of the one that waits, to become the example of the runtime, if there is one.

        What is translated for one cell is for all of them.
        """
        example = getattr(self._module, "EXAMPLE", None) if self._early else None
        if example is not None:
            self._waiting, self._cell = self._cell, Resident(_OTHER_SOCKET)
            self._start()
        self._control.send(event="rehearses", cell=self._early, limits=self._usual, example=example)

    def _rest(self) -> None:
        """Puts the cell that waits into its place again."""
        self._cell.end()
        self._cell = self._waiting
        for name in os.listdir(root.FUNCTION):
            os.unlink(f"{root.FUNCTION}/{name}")
        self._control.send(event="rests")

    def _start(self, first: Callable[[], None] | None = None) -> None:
        """Starts a cell, which calls ``first`` before it is the function's."""
        self._cell.start(lambda listener: PidNamespaces().fork(lambda: self._be_cell(listener, first)))
        if self._early:
            self._cell.connect_ahead()

    def _be_cell(self, listener: socket.socket, first: Callable[[], None] | None) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep_to(_CELLS_CPU)
            if first is not None:
                first()
            Path(view.GROUP, "cgroup.procs").write_text("0")
            os.setsid()
            log = os.open(_LOG, os.O_RDWR)  # one that blocks
            view.enter()
            nothing = os.open("/dev/null", os.O_RDONLY)
            for number, descriptor in enumerate((nothing, log, log)):
                os.dup2(descriptor, number)
            lowest = 3
            for kept in sorted((listener.fileno(), self._cell.hears)):
                os.closerange(lowest, kept)
                lowest = kept + 1
            os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
            privileges.forbid_new_privileges()
            privileges.empty_bounding_set(self._last_capability)
            privileges.become(USER)
            self._inside.prepare()
            if self._early:
                self._inside.close()
            if self._task.program is None:
                self._module.serve(listener, self._prepare)
            else:
                self._module.serve(listener, self._prepare, self._task.program, self._inside.fork)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _prepare(self, request: dict[str, Any]) -> None:
        """Has the cell hear what is not in the request, in its own process, and confines it where it is not yet."""
        request["environment"].update(self._cell.hear())
        if self._early:
            os.chdir(request["code"])
        else:
            self._inside.confine(request)

    def _heed(self) -> None:
        """Does what has been said on the control channel, all of it."""
        message: dict[str, Any] | None = self._control.receive()
        while message is not None:
            self._obey(message)
            message = self._control.hear()

    def _obey(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "rehearse":
                self._rehearse_waking()
                self._practise()
                self._rehearse_living()
            case "rest":
                self._rest()
            case "wake":
                self._wake(message)
            case "signal":
                os.kill(self._cell.pid, message["signal"])
            case _:
                try:
                    self._equip(message)
                except OSError as error:
                    self._control.send(event="refused", error=str(error))
                else:
                    self._control.send(event="equipped")

    def _wake(self, message: dict[str, Any]) -> None:
        """Becomes a machine of its own."""
        self._awake = True
        _add_entropy(self._random, bytes.fromhex(message["entropy"]))
        os.close(self._random)
        time.clock_settime_ns(time.CLOCK_REALTIME, message["time"])
        self._join(message["network"])
        if not self._early:
            self._start()

    def _rehearse_waking(self) -> None:
        _add_entropy(self._random, os.urandom(64))
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())

    def _equip(self, message: dict[str, Any]) -> None:
        """Gives the cell its code, its name and its limits."""
        self._practice = None
        _catch_up(message["time"])
        failure: OSError | None = None
        for folder in (root.FUNCTION, root.DEPENDENCIES)[: 1 + int(message["dependencies"])]:
            try:
                self._control.receive_folder(folder)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure
        self._limit(message)
        socket.sethostname(message["hostname"])
        if self._early:
            rlimits.apply(message["open_files"], message["scratch"], message["processes"], self._cell.pid)
        self._cell.tell({} if message["token"] is None else _told(message["token"]))

    def _limit(self, wanted: dict[str, Any]) -> None:
        """Gives the cell its space and the limits of its cgroup, where it has others yet."""
        for name, limited in self._limited.items():
            if limited == wanted[name]:
                continue
            if name == "scratch":
                root.resize_space(root.SCRATCH, wanted[name])
            else:
                os.pwrite(self._limits[name], str(wanted[name]).encode(), 0)
            self._limited[name] = wanted[name]

    def _serve(self, descriptor: int, event: int) -> None:
        if not (self._awake or self._early):  # to wake was said before, and comes another way
            self._heed()
        for link in self._links:
            if descriptor in link.descriptors:
                link.serve(descriptor, event)
                return

    def _watch_log(self) -> None:
        self._interests.watch(self._log, 0 if self._unsaid else select.EPOLLIN)
        self._interests.watch(self._ports[LOG], select.EPOLLOUT if self._unsaid else 0)

    def _say(self) -> None:
        """Carries on what the cell has printed."""
        try:
            if not self._unsaid:
                self._unsaid = os.read(self._log, _LINE)
            self._unsaid = self._unsaid[os.write(self._ports[LOG], self._unsaid) :]
        except BlockingIOError:
            pass

    def _has_said_all(self) -> bool:
        waiting = select.poll()
        waiting.register(self._log, select.POLLIN)
        return not self._unsaid and not waiting.poll(0) and all(link.quiet for link in self._links)

    def _reap(self, ended: int | None) -> int | None:
        """Buries whoever has ended. Returns how the cell has, once it has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid == self._cell.pid:
                ended = os.waitstatus_to_exitcode(status)


def _told(token: str) -> dict[str, str]:
    """Returns the variables that the host has put into this guest's metadata. Raises OSError."""
    from martlet.microvm.firecracker import (
        mmds,  # which takes much memory, and only one kind of machine has it
    )

    guest_link.show(IPv4Address(mmds.ADDRESS))
    try:
        told = mmds.read(token)
    except mmds.MetadataError as error:
        raise OSError(str(error)) from None
    return {**told.environment, **told.secrets}


def _keep_to(cpu: int) -> None:
    """Has this process, and what it forks, run on one processor, where there is that one."""
    if cpu < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {cpu})


def _catch_up(now: int) -> None:
    """Sets the clock forward to a time that was said; it goes well where it is further."""
    if now > time.time_ns():
        time.clock_settime_ns(time.CLOCK_REALTIME, now)


def _add_entropy(device: int, seed: bytes) -> None:
    """Makes the kernel's random numbers those of this machine: every clone has the same state before.

    Args:
        device: a descriptor of ``/dev/urandom``.
        seed: what only this machine knows.
    """
    fcntl.ioctl(device, _ADD_ENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
    fcntl.ioctl(device, _RESEED)


def main() -> None:
    """Runs the guest. Where that fails the first process ends, and with it the machine."""
    os.umask(0o022)
    _keep_to(_AGENTS_CPU)
    view.make()
    ports = open_ports()
    try:
        agent = Agent(Task.from_json(json.loads(Path(SANDBOX, TASK).read_text())), ports)
        agent.warm()
        agent.run()
    except BaseException:
        os.write(ports.descriptors[LOG], traceback.format_exc().encode()[-_LINE:])
        raise
    signal.pause()  # the warden ends the machine, once it has heard all
