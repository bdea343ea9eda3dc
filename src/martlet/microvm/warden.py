"""What stands in the sandbox of a microVM for the guest: it restores the machine, and speaks for it.

It is forked from a zygote, as every cell is, and the machine monitor is the program that it starts there: confined by
the same steps as the program of a function, with a user of its own, no network but the tap of its guest, and nothing of
the host to be seen. So a guest that breaks out of its machine is where functions of `execution_mode: process` are.

    lane ── listener ── warden ── links, log, control ── monitor ║ agent ── cell

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from martlet.microvm import folders, fork_server, machines, qemu, qemu_machine
from martlet.microvm.control import CONTROL, LINKS, LOG, Control, Nonsense
from martlet.microvm.instructions import equip, wake
from martlet.microvm.links import PIECE, Interests, Link, PortGone
from martlet.microvm.machine import MEMORY_FILE, PLACE, ROOT_FILE, STATE_FILE, Fork
from martlet.microvm.orders import Server
from martlet.sandbox import root, syscalls
from martlet.sandbox.program import Program
from martlet.sandbox.syscalls import Process

OUT_OF_MEMORY = 250
"""How it ends where the guest's kernel has ended the function for its memory."""
_RESOLVERS = Path("/etc/resolv.conf")
_ANSWER_SECONDS = 30.0
_LAST_WORDS_SECONDS = 1.0
_LINE = 4096
_MOST_SIGNALS, _MOST_CODES = 64, 255
_SPECIALISE = b"POST /_martlet/specialise "
_REFUSAL = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b"
)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ENDED, _LIES = "the virtual machine has ended", "the virtual machine says what no machine of Martlet's says"
_kept: dict[str, int] = {}
_server: Server | None = None

Prepare = Callable[[dict[str, Any]], None]


def begin(program: Program) -> bool:
    """Opens the template: nobody needs its files by name any more. Returns whether clones are forked from a machine.

    Memory and state of the saved machine become files that nobody can write to: a monitor maps the memory
    copy-on-write, and for that must open it as if to write.

    Args:
        program: the monitor, whose command line has the descriptors of these files.
    """
    global _server
    if machines.takes_files():
        return False
    # QEMU asks for huge pages where it writes a few bytes, and a monitor takes over what holds for its warden.
    syscalls.prctl(Process.SET_NO_HUGE_PAGES, 1)
    for name in (MEMORY_FILE, STATE_FILE):
        _kept[name] = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(f"{PLACE}/{name}", "rb") as saved:
            _copy(saved.fileno(), _kept[name])
        fcntl.fcntl(_kept[name], fcntl.F_ADD_SEALS, _SEALS)
    _kept[ROOT_FILE] = os.open(f"{PLACE}/{ROOT_FILE}", os.O_RDONLY | os.O_CLOEXEC)
    if qemu.is_emulated(program.command):
        files = {qemu_machine.MEMORY: _kept[MEMORY_FILE], qemu_machine.ROOT: _kept[ROOT_FILE]}
        _server = fork_server.make(program.command, files, _kept[STATE_FILE])
    return _server is not None


def warm() -> tuple[int, ...]:
    """Returns the descriptors that wardens are to keep."""
    json.loads("{}")
    socket_of_server = () if _server is None else (_server.socket.fileno(),)
    return (*_kept.values(), *socket_of_server)


def serve(listener: socket.socket, prepare: Prepare, program: Program, fork: Fork) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process, and the machine with it.

    Args:
        listener: where requests come from.
        prepare: mounts the code, and drops all power of this process.
        program: the monitor.
        fork: forks it confined.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    warden = Warden(listener, prepare)
    warden.start(program.command, fork)
    os._exit(warden.run())


class Warden:
    """See the module."""

    def __init__(self, listener: socket.socket, prepare: Prepare) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._prepare = prepare
        self._interests = Interests()
        self._newcomers: dict[int, tuple[socket.socket, bytes]] = {}
        self._specialised = False
        self._equipping: socket.socket | None = None
        self._unsaid = b""
        self._stopping = False

    def start(self, command: Any, fork: Fork) -> None:
        """Starts a monitor, has it restore the machine, and wakes that up. Raises OSError."""
        server = _server if _server is not None and _server.lives else None
        self._machine = machine = machines.make(_ANSWER_SECONDS, _kept, server)
        channels = machine.start(command, fork)
        self._control = Control(channels[CONTROL])
        address = machine.address
        link = None if address is None else {"address": str(address), "resolvers": _RESOLVERS.read_text()}
        wake(self._control, link)
        self._log = channels[LOG]
        os.set_blocking(self._log, False)
        self._links = [Link(channels[name], self._interests) for name in LINKS]

    def run(self) -> int:
        """Carries requests in, and out what becomes of them and what is printed, until the function has ended.

        Returns:
            The exit code that says how.
        """
        wakeup, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        os.set_blocking(1, False)
        self._interests.watch(wakeup, select.EPOLLIN)
        self._interests.watch(self._control.descriptor, select.EPOLLIN)
        code: int | None = None
        while code is None:
            self._watch()
            for descriptor, event in self._interests.events.poll():
                if descriptor == wakeup:
                    code = self._hear(os.read(wakeup, _LINE))
                elif descriptor == self._control.descriptor:
                    code = self._heed()
                else:
                    code = self._serve(descriptor, event)
                if code is not None:
                    break
        return code

    def _hear(self, signals: bytes) -> int | None:
        if signal.SIGCHLD in signals and os.waitpid(-1, os.WNOHANG)[0]:
            return self._lost()
        if signal.SIGTERM in signals:
            if not self._specialised:
                return 0
            self._stopping = True
            self._control.send(op="signal", signal=int(signal.SIGTERM))
        return None

    def _heed(self) -> int | None:
        """Hears what the agent says: whether the cell has its code, and how the function has ended."""
        try:
            while (said := self._control.hear()) is not None:
                if self._equipping is None or said.get("event") not in ("equipped", "refused"):
                    return self._end(said)
                if said["event"] == "refused":
                    _refuse(self._equipping, str(said.get("error")))
                self._equipping = None
        except Nonsense:
            return self._lost(_LIES)
        except (OSError, EOFError):
            return self._lost()
        return None

    def _lost(self, why: str = _ENDED) -> int:
        room = select.poll()  # there may be none: a guest can fill the log
        room.register(1, select.POLLOUT)
        if room.poll(_LAST_WORDS_SECONDS * 1000):
            with suppress(BlockingIOError):
                os.write(1, f"{why}\n".encode())
        return 1

    def _watch(self) -> None:
        """Takes connections only while there is a link for one: others wait where they are."""
        takes = not self._stopping and any(link.free for link in self._links)
        self._interests.watch(self._listener.fileno(), select.EPOLLIN if takes else 0)
        self._interests.watch(self._log, 0 if self._unsaid else select.EPOLLIN)
        self._interests.watch(1, select.EPOLLOUT if self._unsaid else 0)

    def _serve(self, descriptor: int, event: int) -> int | None:
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor in (self._log, 1):
            return self._print()
        else:
            try:
                if descriptor in self._newcomers:
                    self._meet(descriptor)
                else:
                    self._carry(descriptor, event)
            except PortGone:
                return self._lost()
        return None

    def _carry(self, descriptor: int, event: int) -> None:
        for link in self._links:
            if descriptor in link.descriptors:
                link.serve(descriptor, event)
                return

    def _accept(self) -> None:
        try:
            newcomer, _ = self._listener.accept()
        except OSError:
            return
        if self._specialised:
            self._link(newcomer, b"")
        else:
            newcomer.setblocking(False)
            self._newcomers[newcomer.fileno()] = newcomer, b""
            self._interests.watch(newcomer.fileno(), select.EPOLLIN)

    def _link(self, newcomer: socket.socket, said: bytes) -> None:
        link = next((link for link in self._links if link.free), None)
        if link is None:
            newcomer.close()
        else:
            link.carry(newcomer, said)

    def _meet(self, descriptor: int) -> None:
        """Reads on, until it is known whether a request gives the cell its code, and then until all of it is there."""
        newcomer, said = self._newcomers.pop(descriptor)
        try:
            piece = newcomer.recv(PIECE)
        except OSError:
            piece = b""
        said += piece
        self._interests.watch(descriptor, 0)
        if not piece:
            newcomer.close()
        elif not said.startswith(_SPECIALISE[: len(said)]) or self._specialised:
            self._link(newcomer, said)
        elif (body := _body(said)) is None:
            self._newcomers[descriptor] = newcomer, said
            self._interests.watch(descriptor, select.EPOLLIN)
        else:
            self._specialise(newcomer, said, body)

    def _specialise(self, newcomer: socket.socket, said: bytes, body: bytes) -> None:
        """Lets go of all power, and gives the guest the code and the request, which waits there for the other."""
        document = json.loads(body)
        self._specialised = True
        try:
            self._prepare(document)
            token = self._machine.tell(document["environment"])
            if token is not None:
                said = _without_environment(document)
            drives = [root.FUNCTION, root.DEPENDENCIES][: 1 + (document["dependencies"] is not None)]
            equip(self._control, document, token, *map(folders.pack, drives))
        except OSError as error:
            _refuse(newcomer, str(error))
            newcomer.close()
        else:
            self._equipping = newcomer
            self._link(newcomer, said)

    def _end(self, said: dict[str, Any]) -> int:
        """Carries out what the function has said before its end. Returns the exit code that says how it ended."""
        code = said.get("code")
        if type(code) is not int or not -_MOST_SIGNALS <= code <= _MOST_CODES:
            return self._lost(_LIES)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        self._stopping = True
        while time.monotonic() < deadline and not self._has_heard_all():
            self._watch()
            for descriptor, event in self._interests.events.poll(0.05):
                if descriptor != self._control.descriptor and self._serve(descriptor, event) is not None:
                    break
        if said.get("oom_kills"):
            return OUT_OF_MEMORY
        return 128 - code if code < 0 else code

    def _has_heard_all(self) -> bool:
        waiting = select.poll()
        waiting.register(self._log, select.POLLIN)
        return not self._unsaid and not waiting.poll(0) and all(link.finished for link in self._links)

    def _print(self) -> int | None:
        try:
            if not self._unsaid:
                self._unsaid = os.read(self._log, _LINE)
                if not self._unsaid:
                    return self._lost()
            self._unsaid = self._unsaid[os.write(1, self._unsaid) :]
        except BlockingIOError:
            pass
        return None


def _body(said: bytes) -> bytes | None:
    """Returns the body of a request, which the lane sends with its length; None where not all of it is there."""
    head, end, body = said.partition(b"\r\n\r\n")
    if not end:
        return None
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    return body if len(body) >= int(fields[b"content-length"]) else None


def _without_environment(document: dict[str, Any]) -> bytes:
    """Returns the request that gives a cell its code, for a guest that learns its variables in another way."""
    body = json.dumps(document | {"environment": {}}).encode()
    head = _SPECIALISE + b"HTTP/1.1\r\nhost: martlet\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _refuse(client: socket.socket, why: str) -> None:
    """Answers whoever has brought code that the cell has not got it."""
    body = json.dumps({"error": {"type": "OSError", "message": why}}).encode()
    with suppress(OSError):  # nobody waits for it any more
        client.setblocking(True)
        client.sendall(_REFUSAL % (len(body), body))
        client.shutdown(socket.SHUT_RDWR)


def _copy(source: int, target: int) -> None:
    """Copies what a file holds, and its holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:  # there is a hole up to the end
            return
        end = os.lseek(source, offset, os.SEEK_HOLE)
        os.lseek(source, offset, os.SEEK_SET)
        os.lseek(target, offset, os.SEEK_SET)
        while offset < end:
            copied = os.sendfile(target, source, None, min(end - offset, 1 << 24))
            if copied == 0:
                raise OSError("the template has been cut short")
            offset += copied
