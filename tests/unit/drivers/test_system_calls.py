"""Which system calls a function may make in the sandbox of the process driver: ordinary programs work, others fail."""

import errno
import json
import platform
from collections.abc import AsyncIterator

import pytest

from martlet.drivers.driver import Handle
from martlet.sandbox.seccomp.policy import Policy
from tests.conftest import require
from tests.driver_rigs import Rig, ask, process_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root]

CALLER = """
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)

def handle(request):
    results = []
    for number, arguments in request.get_json():
        result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
        results.append(ctypes.get_errno() if result < 0 else 0)
    return results
"""

PROGRAMS = {
    "threads": """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(lambda n: n * n, range(10)))
    """,
    "subprocess": """
        import subprocess, sys
        shell = subprocess.run("echo $((200 + 85)) | cat", shell=True, capture_output=True, check=True)
        python = subprocess.run([sys.executable, "-c", "print(0)"], capture_output=True, check=True)
        return int(shell.stdout) + int(python.stdout)
    """,
    "a pool of processes": """
        import multiprocessing, operator
        with multiprocessing.get_context("fork").Pool(3) as pool:
            return sum(pool.starmap(operator.mul, [(n, n) for n in range(10)]))
    """,
    "shared memory and semaphores": """
        import multiprocessing
        from multiprocessing.shared_memory import SharedMemory
        context = multiprocessing.get_context("fork")
        memory, done = SharedMemory(create=True, size=4), context.Semaphore(0)
        def work():
            memory.buf[:2] = (285).to_bytes(2, "big")
            done.release()
        process = context.Process(target=work)
        process.start()
        assert done.acquire(timeout=20)
        process.join()
        value = int.from_bytes(memory.buf[:2], "big")
        memory.close()
        memory.unlink()
        return value
    """,
    "asyncio": """
        import asyncio
        async def main():
            async def answer(reader, writer):
                writer.write(await reader.read(10))
                writer.close()
            server = await asyncio.start_unix_server(answer, "/tmp/sock")
            async with server:
                reader, writer = await asyncio.open_unix_connection("/tmp/sock")
                writer.write(b"280")
                echoed = int(await reader.read())
            process = await asyncio.create_subprocess_exec("echo", "5", stdout=asyncio.subprocess.PIPE)
            said, _ = await process.communicate()
            return echoed + int(said)
        return asyncio.run(main())
    """,
    "sockets": """
        import socket, threading
        total = 0
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                server = socket.create_server((address, 0), family=family)
            except OSError:
                total += 100
                continue
            client = socket.create_connection(server.getsockname()[:2])
            peer, _ = server.accept()
            with open("/tmp/sent", "wb+") as file:
                file.write(b"100")
                file.seek(0)
                client.sendfile(file)
            total += int(peer.recv(10))
        here, there = socket.socketpair()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))
            datagrams.sendto(b"85", datagrams.getsockname())
            here.send(datagrams.recv(10))
        assert socket.getaddrinfo("localhost", 80)
        return total + int(there.recv(10))
    """,
    "names of the machine and its network": """
        import socket
        assert socket.gethostname() == "program"
        return 284 + [name for _, name in socket.if_nameindex()].count("lo")
    """,
    "sqlite": """
        import sqlite3
        with sqlite3.connect("/tmp/database") as database:
            database.execute("pragma journal_mode = wal")
            database.execute("create table numbers (n)")
            database.executemany("insert into numbers values (?)", [(n,) for n in range(10)])
            return database.execute("select sum(n * n) from numbers").fetchone()[0]
    """,
    "what the standard library asks of the kernel": """
        import fcntl, mmap, os, resource, select, signal, tempfile, time
        os.sched_setaffinity(0, os.sched_getaffinity(0))
        os.getrandom(8), os.sysconf("SC_PHYS_PAGES"), os.times(), os.uname()
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        os.mkfifo("/tmp/fifo")
        os.fdatasync(os.memfd_create("memory"))
        signal.setitimer(signal.ITIMER_REAL, 60)
        signal.alarm(0)
        assert signal.sigtimedwait([signal.SIGUSR1], 0) is None
        with tempfile.TemporaryFile() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.posix_fallocate(file.fileno(), 0, 4096)
            mmap.mmap(file.fileno(), 4096).flush()
        events = select.epoll()
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        watched = os.pidfd_open(pid)
        events.register(watched)
        assert events.poll(20)
        os.waitid(os.P_PIDFD, watched, os.WEXITED)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        time.sleep(0.001)
        return 285
    """,
    "numpy": """
        import numpy
        return int((numpy.arange(10).reshape(1, 10) @ numpy.arange(10).reshape(10, 1))[0, 0])
    """,
    "Pillow": """
        import io
        from PIL import Image
        image, file = Image.new("RGB", (57, 5), "red"), io.BytesIO()
        image.save(file, "PNG")
        width, height = Image.open(file).resize((57, 5)).size
        return width * height
    """,
}
PACKAGES = {"numpy": ["numpy", "numpy.libs"], "Pillow": ["PIL", "pillow.libs"]}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
async def rig(shared_rig: Rig) -> AsyncIterator[Rig]:
    yield shared_rig
    await shared_rig.clear()


async def answers(handle: Handle, *calls: tuple[str, list[int]]) -> list[int]:
    """The error numbers that system calls are answered with inside; 0 for those that are made."""
    numbers = Policy.load().numbers
    return json.loads(await ask(handle, [[numbers[name], arguments] for name, arguments in calls]))


@pytest.mark.parametrize("name", PROGRAMS)
async def test_ordinary_programs_work(rig: Rig, name: str):
    dependencies = rig.installed(PACKAGES[name]) if name in PACKAGES else None
    source = f"def handle(request):{PROGRAMS[name]}"

    handle = await rig.instance("program", source=source, dependencies=dependencies, timeout=60)

    assert await ask(handle) == b"285"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("mount", [0, 0, 0, 0x1000, 0]),
        ("umount2", [0, 2]),
        ("pivot_root", [0, 0]),
        ("chroot", [0]),
        ("fsopen", [0, 0]),
        ("open_tree", [-100, 0, 0]),
        ("unshare", [0x10000000]),
        ("unshare", [0]),
        ("setns", [1, 0]),
        ("clone", [0x10000000 | 17, 0, 0, 0, 0]),
        ("bpf", [0, 0, 0]),
        ("keyctl", [0, -3]),
        ("add_key", [0, 0, 0, 0, -3]),
        ("perf_event_open", [0, 0, -1, -1, 0]),
        ("ptrace", [0, 0, 0, 0]),
        ("process_vm_readv", [1, 0, 0, 0, 0, 0]),
        ("kcmp", [1, 1, 0, 0, 0]),
        ("pidfd_getfd", [0, 0, 0]),
        ("name_to_handle_at", [-100, 0, 0, 0, 0]),
        ("fanotify_init", [0, 0]),
        ("quotactl", [0, 0, 0, 0]),
        ("syslog", [10, 0, 0]),
        ("sync", []),
        ("adjtimex", [0]),
        ("personality", [0x0040000]),
        ("prctl", [35, 0, 0, 0, 0]),
        ("prctl", [1, 0, 0, 0, 0]),
        ("ioctl", [0, 0x5412, 0]),
        ("socket", [16, 3, 12]),
        ("socket", [17, 3, 0]),
        ("socket", [38, 5, 0]),
        ("socket", [40, 1, 0]),
        ("socket", [2, 3, 255]),
        ("socket", [2, 5, 132]),
        ("mknodat", [-100, 0, 0o020644, 0]),
    ],
)
async def test_what_is_not_on_the_list_is_refused(rig: Rig, call: str, arguments: list[int]):
    handle = await rig.instance("caller", source=CALLER)

    assert await answers(handle, (call, arguments)) == [errno.EPERM]


async def test_what_libraries_do_without_is_absent(rig: Rig):
    handle = await rig.instance("caller", source=CALLER)
    calls = ("clone3", "io_uring_setup", "userfaultfd", "io_setup", "memfd_secret")

    assert await answers(handle, *((name, [0, 0]) for name in calls)) == [errno.ENOSYS] * len(calls)


async def test_the_filter_is_there_before_the_code(rig: Rig):
    source = """
import socket
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    refused = False
except PermissionError:
    refused = True
filters = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp")]
def handle(request): return [refused, filters]
"""
    handle = await rig.instance("early", source=source)

    assert json.loads(await ask(handle)) == [True, ["2", "2"]]  # what has held before, and the rest


async def test_what_it_starts_is_filtered_too(rig: Rig):
    source = """
import subprocess, sys
def handle(request):
    program = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr
"""
    handle = await rig.instance("parent", source=source)

    assert b"PermissionError" in await ask(handle)


async def test_a_call_of_another_architecture_ends_it(rig: Rig):
    require(platform.machine() == "x86_64", "a machine with a second set of system calls")
    source = """
import os, signal, ctypes
def handle(request):
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS
"""
    handle = await rig.instance("foreign", source=source)

    assert await ask(handle) == b"true"
