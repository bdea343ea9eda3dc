"""Takes as much as it can get of everything, and does not let go."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
import time

from attempts import handle as handle
from attempts import libc

EVERYTHING = 10_000_000
kept = []


def alive():
    """Answers as it should."""
    return "alive"


def _take(take):
    """Takes until it is refused; returns how often it was given."""
    for count in range(EVERYTHING):
        try:
            kept.append(take(count))
        except (OSError, MemoryError, RuntimeError, ValueError):
            return count
    return EVERYTHING


def _sleeper(_):
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
        os._exit(0)
    return pid


def fork_bomb():
    """Forks processes that fork, all of them without end."""
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def processes():
    """Starts processes that stay."""
    return _take(_sleeper)


def threads():
    """Starts threads that stay."""

    def start(_):
        thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
        thread.start()
        return thread

    threading.stack_size(64 * 1024)
    return _take(start)


def descriptors():
    """Opens files."""
    return _take(lambda _: os.open("/dev/null", os.O_RDONLY))


def memory():
    """Fills memory."""
    return _take(lambda _: bytearray(b"x" * (1 << 20)))


def shared_memory():
    """Fills memory that belongs to no process: files in memory, shared maps."""

    def fill(count):
        file = os.memfd_create(str(count))
        for _ in range(4):
            os.write(file, b"x" * (1 << 20))
        return file

    return _take(fill)


def page_tables():
    """Touches one page of each of many large maps, so that the tables of pages are what costs."""

    def spread(_):
        area = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for place in range(0, 1 << 30, 1 << 21):
            area[place] = 1
        return area

    return _take(spread)


def pipes():
    """Fills pipes with data that nobody reads."""

    def fill(_):
        ends = os.pipe2(os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ends[1], bytes(1 << 16))
        return ends

    return _take(fill)


def socket_buffers():
    """Fills sockets with data that nobody reads, in processes of their own so that there are more of them."""

    def fill(_):
        ends = socket.socketpair()
        ends[0].setblocking(False)
        ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        with contextlib.suppress(BlockingIOError):
            while True:
                ends[0].send(bytes(1 << 16))
        return ends

    for _ in range(8):
        if os.fork() == 0:
            _take(fill)
            time.sleep(3600)
    return _take(fill)


def sockets():
    """Opens sockets and listens on ports."""

    def listen(_):
        each = socket.create_server(("127.0.0.1", 0))
        return each, socket.create_connection(each.getsockname())

    return _take(listen)


def system_v():
    """Makes segments, queues and semaphores that outlive a process."""
    segments = _take(lambda _: _checked(libc.shmget(0, 1 << 20, 0o1600)))
    queues = _take(lambda _: _checked(libc.msgget(0, 0o1600)))
    return [segments, queues, _take(lambda _: _checked(libc.semget(0, 1000, 0o1600)))]


def message_queues():
    """Makes POSIX queues, which the kernel keeps in its own memory."""
    return _take(lambda count: _checked(libc.mq_open(b"/%d" % count, os.O_CREAT | os.O_RDWR, 0o600, None)))


def watches():
    """Has the kernel watch files and descriptors."""
    inotify = libc.inotify_init()
    epolls = _take(lambda _: select.epoll())
    return [epolls, _take(lambda count: _checked(libc.inotify_add_watch(inotify, b"/tmp", 0xFFF)))][0]


def locked_memory():
    """Locks memory so that it cannot be moved out."""
    area = mmap.mmap(-1, 1 << 26)
    place = ctypes.addressof(ctypes.c_char.from_buffer(area))
    return [libc.mlock(ctypes.c_void_p(place), 1 << 26), libc.mlockall(3)]


def disk():
    """Fills the scratch space with data."""

    def fill(count):
        with open(f"/tmp/{count}", "wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass

    return _take(fill)


def names():
    """Fills the scratch space with empty files and folders."""

    def make(count):
        folder = f"/tmp/{count // 1000}"
        os.makedirs(folder, exist_ok=True)
        open(f"{folder}/{count}", "x").close()

    return _take(make)


def huge_files():
    """Makes files with holes, larger than the disk of the host."""
    try:
        with open("/tmp/holes", "wb") as file:
            file.truncate(1 << 50)
    except OSError as error:
        return error.errno
    return 0


def lines(seconds):
    """Prints lines as fast as it can."""
    end, block = time.monotonic() + seconds, b"a line that says nothing\n" * 100
    while time.monotonic() < end:
        os.write(1, block)


def endless_line(seconds):
    """Prints a line that does not end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(2, b"a" * 4096)


def binary(seconds):
    """Prints bytes that are no text, and frames of the runtime that are none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(1, os.urandom(2048))
        os.write(1, b'\x1e{"t": 1e999, "id": "' + b"\x00\xff\x1e" * 100 + b'", "s": [], "m": {}}\n')


def forged_lines(request_id):
    """Prints lines that claim to be another request's, the platform's, or of another time."""
    for stream in ("stdout", "platform", "../../error"):
        frame = b'\x1e{"t": 0, "id": "%b", "s": "%b", "m": "forged"}\n'
        os.write(1, frame % (request_id.encode(), stream.encode()))


def spin():
    """Computes for ever inside C code, where no signal handler of Python's runs."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sum(range(10**14))


def compute(seconds):
    """Computes for so long, and answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def spin_everywhere():
    """Computes for ever in as many processes as it gets."""
    for _ in range(50):
        if os.fork() == 0:
            break
    while True:
        pass


def leave_daemons():
    """Leaves processes behind that are nobody's children and ignore every signal they can."""
    if os.fork() == 0:
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                libc.prctl(1, 0, 0, 0, 0)
                os.closerange(0, 1024)
                time.sleep(3600)
        os._exit(0)
    os.wait()
    return "left"


def hold_on():
    """Cuts all that ties it to the platform, and goes on."""
    libc.prctl(1, 0, 0, 0, 0)
    os.closerange(0, 4096)
    time.sleep(3600)


def stop_itself():
    """Stops itself, and all its threads."""
    os.kill(os.getpid(), signal.SIGSTOP)
    os.kill(0, signal.SIGSTOP)
    time.sleep(3600)


def close_everything():
    """Closes every descriptor, its connection and its listening socket among them."""
    os.closerange(0, 4096)
    return "closed"


def recurse():
    """Calls itself until the stack is at its end."""
    sys.setrecursionlimit(2**30)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)

    class Deep:
        def __repr__(self):
            return repr(self)

    return repr(Deep())


def segfault():
    """Reads what is not there."""
    return ctypes.string_at(0)


def abort():
    """Aborts."""
    os.abort()


def leave(code):
    """Ends itself with an exit code."""
    os._exit(code)


def raise_limits():
    """Asks for more of what it is limited to."""
    raised = []
    for name in (
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_FSIZE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_CORE",
    ):
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft, hard + 1 if hard >= 0 else hard))
            raised.append(name)
    return raised


def _checked(result):
    if result < 0:
        raise OSError
    return result
