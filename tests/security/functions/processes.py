"""Reaches for processes that are not its own."""

import ctypes
import os
import signal

from attempts import handle as handle
from attempts import in_a_child, libc, refusal, system_call

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
KCMP_FILE = 0
PRIO_PROCESS, IOPRIO_WHO_PROCESS = 0, 1


class Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def signal_everyone():
    """Kills every process it may signal, from a child that survives its own shot."""
    return in_a_child(os.kill, -1, signal.SIGKILL)


def touch(*pids):
    """Signals, traces, reads and renices processes of the host by their numbers."""
    buffer = ctypes.create_string_buffer(64)
    local = Vector(ctypes.cast(buffer, ctypes.c_void_p), 64)
    remote = Vector(0x400000, 64)
    vectors = (ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return {
        action: sorted({str(refusal(attempt, pid)) for pid in pids})
        for action, attempt in {
            "signal": lambda pid: os.kill(pid, signal.SIGKILL),
            "signal the group": lambda pid: os.killpg(pid, signal.SIGKILL),
            "attach": lambda pid: system_call("ptrace", PTRACE_ATTACH, pid, 0, 0),
            "seize": lambda pid: system_call("ptrace", PTRACE_SEIZE, pid, 0, 0),
            "read memory": lambda pid: system_call("process_vm_readv", pid, *vectors),
            "compare": lambda pid: system_call("kcmp", os.getpid(), pid, KCMP_FILE, 0, 0),
            "open": lambda pid: system_call("pidfd_open", pid, 0),
            "renice": lambda pid: os.setpriority(PRIO_PROCESS, pid, 19),
            "set affinity": lambda pid: os.sched_setaffinity(pid, {0}),
            "look at": lambda pid: os.stat(f"/proc/{pid}"),
        }.items()
    }


def parents():
    """Its parent, group leader and session, as numbers it could aim at; 0 is outside."""
    return [os.getppid(), libc.getpgid(os.getppid())]


def signal_parent():
    """Signals process 0, its own group, in the hope that the zygote is in it."""
    return in_a_child(os.kill, 0, signal.SIGKILL)
