"""A template: loaded code that serves nothing, and that instances are forked from.

The node talks to it over the first connection after it was specialised, a line of JSON a message:

    node → template   {"op": "fork", "id"} + listener, log, doors of the cgroup
    template → node   {"event": "forked", "id"}             sent by the fork: the kernel says which process that is
                      {"event": "refused", "id", "error"}
                      {"event": "exited", "id", "code"}

The forks end with the template, which is process 1 of their namespace, and it ends when the connection does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import traceback
from typing import Any

from . import logs, process
from .forkable import SCRATCH

_MAX_MESSAGE = 4096
_MAX_DESCRIPTORS = 16


class Template:
    """See the module. It waits for the node to connect to ``listener``, and closes that."""

    def __init__(self, listener: socket.socket) -> None:
        self._control, _ = listener.accept()
        listener.close()
        self._forks: dict[int, str] = {}
        self._wakeup, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._on_child = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker)

    def run(self) -> socket.socket:
        """Forks as it is told to. Returns in each fork, with its listener, and never in the template."""
        gc.freeze()  # a collection in a fork would write to, and so copy, all that is shared
        events = select.poll()
        events.register(self._wakeup, select.POLLIN)
        events.register(self._control, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in events.poll()}
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._control.fileno() in ready:
                listener = self._serve()
                if listener is not None:
                    return listener

    def _serve(self) -> socket.socket | None:
        # What comes with descriptors is received by itself (unix(7)): this is one whole message.
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, _MAX_MESSAGE, _MAX_DESCRIPTORS)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)  # `recv_fds` overlooks a flag for it
        except ConnectionResetError:
            message = b""
        if not message:
            os._exit(0)
        name = json.loads(message)["id"]
        try:
            pid = os.fork()
        except OSError as error:
            self._tell("refused", id=name, error=str(error))
        else:
            if pid == 0:
                return self._become_instance(name, *descriptors)
            self._forks[pid] = name
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def _become_instance(self, name: str, listener: int, log: int, *doors: int) -> socket.socket:
        """In the fork: leaves the template's things, and says that it is there."""
        try:
            for door in doors:
                os.write(door, b"0")
                os.close(door)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, self._on_child)
            os.close(self._wakeup)
            os.close(self._waker)
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            process.part(_scratch_of(name))
            self._tell("forked", id=name)
            self._control.close()
        except BaseException:
            traceback.print_exc()
            logs.end()
            os._exit(1)
        return socket.socket(fileno=listener)

    def _reap(self) -> None:
        """Waits for forks that have ended, and for what they left behind, whose parent this is now."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                name = self._forks.pop(pid, None)
                if name is not None:
                    self._tell("exited", id=name, code=os.waitstatus_to_exitcode(status))
                    shutil.rmtree(_scratch_of(name), ignore_errors=True)

    def _tell(self, event: str, **members: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the node is gone, which `_serve` learns as well
            self._control.sendall(json.dumps({"event": event, **members}).encode() + b"\n")


def _scratch_of(name: str) -> str:
    return f"{SCRATCH}/{name}"
