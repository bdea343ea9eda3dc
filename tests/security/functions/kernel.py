"""Asks the kernel for what only the owner of the machine may do, or what kernels have been broken through."""

import ctypes
import fcntl
import os
import socket
import stat
import struct
import termios
import time

from attempts import handle as handle
from attempts import in_a_child, refusal, system_call

CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x00020000, 0x20000000, 0x40000000
REBOOT_MAGIC, REBOOT_HALT = (0xFEE1DEAD, 672274793), 0xCDEF0123
SESSION_KEYRING, GET_KEYRING_ID = -3, 0
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
AF_VSOCK, AF_ALG, AF_KEY, AF_PACKET, AF_XDP = 40, 38, 15, 17, 44


def _struct(*fields):
    return ctypes.create_string_buffer(struct.pack(*fields))


def _new_user_by_clone3():
    arguments = _struct("11Q", CLONE_NEWUSER, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    if system_call("clone3", arguments, 88) == 0:
        os._exit(0)


def _new_user_by_clone():
    if system_call("clone", CLONE_NEWUSER | 17, 0, 0, 0, 0) == 0:
        os._exit(0)


def _open_by_handle():
    root_of_the_host = _struct("IiQ", 8, 1, 2)
    system_call("open_by_handle_at", os.open("/", os.O_RDONLY), root_of_the_host, os.O_RDONLY)


def _set_clock():
    system_call("clock_settime", 0, _struct("qq", int(time.time()), 0))


def _write(path):
    with open(path, "w") as file:
        file.write("1")


MOUNTING = {
    "mount": lambda: system_call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, 0),
    "bind": lambda: system_call("mount", b"/", b"/tmp", 0, 4096, 0),
    "mount /proc again": lambda: system_call("mount", b"proc", b"/proc", b"proc", 0, 0),
    "make writable": lambda: system_call("mount", 0, b"/usr", 0, 0x20 | 0x1000, 0),
    "mount_setattr": lambda: system_call("mount_setattr", -100, b"/usr", 0, _struct("4Q", 0, 1, 0, 0), 32),
    "umount": lambda: system_call("umount2", b"/proc", 2),
    "umount the code": lambda: system_call("umount2", b"/function", 2),
    "pivot_root": lambda: system_call("pivot_root", b"/tmp", b"/tmp"),
    "fsopen": lambda: system_call("fsopen", b"tmpfs", 0),
    "chroot": lambda: os.chroot("/tmp"),
    "mknod": lambda: os.mknod("/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
    "swapon": lambda: system_call("swapon", b"/tmp/swap", 0),
    "open_by_handle_at": _open_by_handle,
}
IDENTITY = {
    "setuid": lambda: os.setuid(0),
    "setresuid": lambda: os.setresuid(0, 0, 0),
    "setgid": lambda: os.setgid(0),
    "setgroups": lambda: os.setgroups([0]),
    "chown": lambda: os.chown("/tmp", 0, 0),
    "unshare the user": lambda: system_call("unshare", CLONE_NEWUSER),
    "unshare mounts": lambda: system_call("unshare", CLONE_NEWNS),
    "unshare processes": lambda: system_call("unshare", CLONE_NEWPID),
    "unshare the network": lambda: system_call("unshare", CLONE_NEWNET),
    "clone a user": _new_user_by_clone,
    "clone3 a user": _new_user_by_clone3,
}
MACHINE = {
    "reboot": lambda: system_call("reboot", *REBOOT_MAGIC, REBOOT_HALT, 0),
    "kexec_load": lambda: system_call("kexec_load", 0, 0, 0, 0),
    "kexec_file_load": lambda: system_call("kexec_file_load", 0, 0, 0, 0, 0),
    "init_module": lambda: system_call("init_module", b"\x7fELF", 4, b""),
    "finit_module": lambda: system_call("finit_module", 0, b"", 0),
    "settimeofday": lambda: system_call("settimeofday", _struct("qq", int(time.time()), 0), 0),
    "clock_settime": _set_clock,
    "sethostname": lambda: socket.sethostname("other"),
    "read the kernel's log": lambda: system_call("syslog", 3, ctypes.create_string_buffer(64), 64),
    "account": lambda: system_call("acct", b"/tmp/accounts"),
    "raise priority": lambda: os.nice(-5),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "ports": lambda: system_call("iopl", 3),
    "write a setting": lambda: _write("/proc/sys/kernel/core_pattern"),
    "write a setting of the network": lambda: _write("/proc/sys/net/ipv4/ip_forward"),
    "drop the caches": lambda: _write("/proc/sys/vm/drop_caches"),
    "escape the OOM killer": lambda: _write_score(-1000),
}
BROKEN_BEFORE = {
    "bpf": lambda: system_call("bpf", 0, _struct("16I", 1, 4, 4, 1, *[0] * 12), 64),
    "perf_event_open": lambda: system_call(
        "perf_event_open", _struct("II14Q", 1, 120, *[0] * 14), 0, -1, -1, 0
    ),
    "userfaultfd": lambda: system_call("userfaultfd", 0),
    "io_uring_setup": lambda: system_call("io_uring_setup", 4, ctypes.create_string_buffer(120)),
    "add_key": lambda: system_call("add_key", b"user", b"name", b"secret", 6, SESSION_KEYRING),
    "request_key": lambda: system_call("request_key", b"user", b"name", 0, 0),
    "keyctl": lambda: system_call("keyctl", GET_KEYRING_ID, SESSION_KEYRING, 1),
    "personality": lambda: system_call("personality", 0x0400000),
    "push terminal input": lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
}
SOCKETS = {
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "raw IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "packet": lambda: socket.socket(AF_PACKET, socket.SOCK_RAW, 0x0300),
    "packet datagrams": lambda: socket.socket(AF_PACKET, socket.SOCK_DGRAM, 0x0300),
    "key management": lambda: socket.socket(AF_KEY, socket.SOCK_RAW, 2),
    "XDP": lambda: socket.socket(AF_XDP, socket.SOCK_RAW, 0),
    "virtual machine": lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM),
    "kernel crypto": lambda: socket.socket(AF_ALG, socket.SOCK_SEQPACKET),
    "netfilter": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER),
}
GROUPS = {
    "mounting": MOUNTING,
    "identity": IDENTITY,
    "machine": MACHINE,
    "broken before": BROKEN_BEFORE,
    "sockets": SOCKETS,
}


def raise_own_priority():
    """Asks for precedence for itself, and says nothing of the answers: what counts is what becomes of it."""
    for action in (MACHINE["raise priority"], MACHINE["real time"]):
        refusal(action)


def _write_score(score):
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(score))


def try_all(group):
    """Tries each of a group in a child of its own; returns the refusals."""
    return {name: in_a_child(action) for name, action in GROUPS[group].items()}


def find_setuid_programs():
    """Returns the paths of all programs that run as somebody else."""
    return [
        os.path.join(folder, name)
        for top in ("/usr", "/opt", "/srv")
        for folder, _, names in os.walk(top)
        for name in names
        if os.lstat(os.path.join(folder, name)).st_mode & (stat.S_ISUID | stat.S_ISGID)
    ]


def run_setuid_programs():
    """Starts the system's setuid programs; returns the user ids that they run as, read from what they leave behind."""
    users = set()
    for path in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/chsh", "/usr/bin/newgrp", "/usr/bin/mount"):
        if not os.path.exists(path) or not os.stat(path).st_mode & stat.S_ISUID:
            continue
        pid = os.posix_spawn(
            path, [path], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        )
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with open(f"/proc/{pid}/status") as status:
            users |= {int(each) for line in status if line.startswith("Uid:") for each in line.split()[1:]}
        os.waitpid(pid, 0)
    return sorted(users)


def user():
    """Who it is."""
    return os.geteuid()


def add_network_address():
    """Adds an address to the loopback device by netlink; returns the error number that the kernel answers."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    address = socket.inet_aton("127.9.9.9")
    body = struct.pack("BBBBi", socket.AF_INET, 8, 0, 0, 1) + struct.pack("HH", 8, 2) + address
    netlink.send(struct.pack("IHHII", 16 + len(body), 20, 5, 1, 0) + body)
    return -struct.unpack_from("i", netlink.recv(4096), 16)[0]
