"""What the hostile functions share: the body of a request names the attempt, the answer is what came of it."""

import ctypes
import errno
import importlib
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

SYSTEM_CALLS = {  # x86-64, arm64
    "ptrace": (101, 117),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "personality": (135, 92),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "clone": (56, 220),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "fsopen": (430, 430),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "iopl": (172, None),
    "mknodat": (259, 33),
}
_COLUMN = ("x86_64", "aarch64").index(platform.machine())


def system_call(name, *arguments):
    """Makes a system call by its name. Raises `OSError`."""
    number = SYSTEM_CALLS[name][_COLUMN]
    if number is None:
        raise OSError(errno.ENOSYS, f"{name} does not exist on this machine")
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def refusal(action, *arguments):
    """Returns the name of the error that an action is refused with, or None where it succeeds."""
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return None


def readable(path):
    """Whether anything of a file can be read."""
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def in_a_child(action, *arguments):
    """Tries in a child, since success might be the end of this process; returns as `refusal` does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, (refusal(action, *arguments) or "").encode() + b".")
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        answer = said.read().decode()
    os.waitpid(pid, 0)
    return answer[:-1] or None if answer.endswith(".") else "killed"


def handle(request):
    """Makes the attempt that the request names; an outcome that is a tuple is the whole answer."""
    document = request.get_json()
    attempt = getattr(importlib.import_module("handler"), document["attempt"])
    outcome = attempt(*document["arguments"])
    return outcome if isinstance(outcome, tuple) else {"outcome": outcome}
