"""What a function finds when it looks around in the sandbox of the process driver, and what it is refused."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers.driver import Handle
from tests.conftest import require
from tests.driver_rigs import Rig, ask, process_rig, program_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root]

MakeRig = Callable[[Path], AbstractAsyncContextManager[Rig]]

EVALUATE = """
import errno, glob, os, resource, socket, subprocess, sys, time
from pathlib import Path

def refusal(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.errno

def status():
    return dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())

def fork_bomb():
    children = []
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
            children.append(pid)
    except OSError as error:
        refused = error.errno
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return [len(children), refused]

def fill(path):
    written = 0
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                written += file.write(bytes(1 << 20))
        except OSError as error:
            return [written, error.errno]

def spin(seconds):
    started, end = time.perf_counter(), time.process_time() + seconds
    while time.process_time() < end:
        pass
    return (time.perf_counter() - started) / seconds

def handle(request):
    return {"value": eval(request.get_json())}
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=[process_rig, program_rig], ids=["module", "program"])
def make_rig(request: pytest.FixtureRequest) -> MakeRig:
    return request.param


@pytest.fixture(scope="module")
async def shared_rig(make_rig: MakeRig, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with make_rig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
async def rig(shared_rig: Rig) -> AsyncIterator[Rig]:
    yield shared_rig
    await shared_rig.clear()


async def evaluator(rig: Rig, **config: Any) -> Handle:
    """An instance that evaluates Python expressions."""
    return await rig.instance("evaluate", source=EVALUATE, **config)


async def inside(handle: Handle, expression: str) -> Any:
    """What an expression is worth inside of the sandbox."""
    return json.loads(await ask(handle, expression))["value"]


async def test_each_instance_has_a_user_and_group_of_its_own(rig: Rig):
    one, other = await evaluator(rig), await evaluator(rig)

    ids = [await inside(each, "[*os.getresuid(), *os.getresgid()]") for each in (one, other)]

    assert len(set(ids[0])) == len(set(ids[1])) == 1
    assert ids[0][0] >= 2_000_000_000
    assert ids[0][0] != ids[1][0]
    assert await inside(one, "os.getgroups()") == []


async def test_it_has_no_capability_and_gets_none(rig: Rig):
    status = await inside(await evaluator(rig), "status()")

    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"


async def test_it_is_alone_in_its_list_of_processes(rig: Rig):
    one, _ = await evaluator(rig), await evaluator(rig)

    own = await inside(one, "os.getpid()")
    assert await inside(one, "[name for name in os.listdir('/proc') if name.isdigit()]") == (
        ["1"] if rig.runtime == "python" else ["1", str(own)]  # 1 is the warden
    )
    assert await inside(one, f"refusal(os.kill, {os.getpid()}, 0)") == errno.ESRCH


async def test_the_machine_is_called_like_the_function(rig: Rig):
    assert await inside(await evaluator(rig), "socket.gethostname()") == "evaluate"


async def test_no_path_of_the_host_is_there(rig: Rig):
    handle = await evaluator(rig)

    hidden = [
        rig.folder,
        rig.run,
        rig.packages,
        Path(handle.socket),
        Path(__file__),
        Path("/var"),
        Path("/etc/shadow"),
    ]
    for path in hidden:
        assert path.exists()
        assert not await inside(handle, f"os.path.exists({str(path)!r})")


async def test_it_sees_its_own_code_and_no_other(rig: Rig):
    rig.package(handler="SECRET = 'of somebody else'")
    handle = await evaluator(rig)

    assert await inside(handle, "os.listdir('/function')") == ["handler.py"]
    assert await inside(handle, "os.listdir('/.packages')") == []


@pytest.mark.parametrize(
    "directory", ["/", "/function", "/usr/bin", "/etc", "/dev", os.path.dirname(os.__file__)]
)
async def test_it_cannot_write_outside_of_its_scratch_space(rig: Rig, directory: str):
    handle = await evaluator(rig)

    refused = await inside(handle, f"refusal(open, '{directory}/new', 'w')")

    assert refused in (errno.EROFS, errno.EACCES)


async def test_dependencies_can_be_imported(rig: Rig):
    dependencies = rig.package(greeting="WORDS = 'from a dependency'")
    source = "import greeting\ndef handle(request): return greeting.WORDS"

    handle = await rig.instance("polite", source=source, dependencies=dependencies)

    assert await ask(handle) == b"from a dependency"


async def test_it_cannot_import_what_martlet_is_made_of(rig: Rig):
    handle = await evaluator(rig)

    paths = await inside(handle, "[path for path in sys.path if path != '/function']")

    assert paths
    assert not any("site-packages" in path for path in paths)


async def test_it_inherits_no_descriptor(rig: Rig):
    handle = await evaluator(rig)

    names = "[os.readlink(link) for link in glob.glob('/proc/self/fd/*') if os.path.islink(link)]"
    open_files = await inside(handle, names)

    sockets = [name for name in open_files if name.startswith("socket:")]
    others = {
        "(its specification)" if name.startswith("pipe:") else name
        for name in open_files
        if name not in sockets
    }
    assert others == {"/dev/null" if rig.runtime == "python" else "(its specification)", handle.log}
    assert len(sockets) == 2  # the listener and this very request


async def test_it_inherits_nothing_of_the_platforms_environment(
    make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECRET_OF_THE_PLATFORM", "x")

    async with make_rig(tmp_path) as rig:
        names = await inside(await evaluator(rig, environment={"MINE": "1"}), "list(os.environ)")

    assert "MINE" in names
    assert not [name for name in names if "SECRET" in name]


async def test_its_standard_output_can_be_opened_by_name(rig: Rig):
    assert await inside(await evaluator(rig), "refusal(open, '/dev/stdout', 'w')") is None


async def test_the_mask_of_the_platform_does_not_lock_it_out(make_rig: MakeRig, tmp_path: Path):
    async with make_rig(tmp_path) as rig:
        rig.package(handler=EVALUATE)
        mask = os.umask(0o077)
        try:
            handle = await evaluator(rig)
        finally:
            os.umask(mask)

        assert await inside(handle, "sorted(os.listdir('/'))")
        assert await inside(handle, "subprocess.run([sys.executable, '-c', 'print(1)']).returncode") == 0


async def test_a_fork_bomb_is_held_and_the_instance_goes_on(rig: Rig):
    handle = await evaluator(rig, timeout=60, memory="512Mi")  # enough for as many processes as it may have

    forked, refused = await inside(handle, "fork_bomb()")

    assert refused == errno.EAGAIN
    assert 50 < forked < 200
    assert await inside(handle, "1") == 1


async def test_memory_is_limited_for_all_of_its_processes_together(rig: Rig):
    handle = await evaluator(rig, memory="64Mi")
    eater = "import time; x = bytearray(40 << 20); print(flush=True); time.sleep(600)"
    feed = (
        f"[subprocess.Popen([sys.executable, '-c', {eater!r}], stdout=-1).stdout.read(1) for _ in range(2)]"
    )

    await asyncio.wait([asyncio.create_task(ask(handle, f"{feed} and None"))])

    stats = await rig.driver.stats(handle)
    assert stats is not None
    assert stats.oom_kills >= 1


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm"])
async def test_a_full_scratch_space_is_an_error_and_not_the_end(rig: Rig, directory: str):
    handle = await evaluator(rig, memory="64Mi")

    written, refused = await inside(handle, f"fill('{directory}/file')")

    assert written == 32 << 20
    assert refused in (errno.ENOSPC, errno.EFBIG)


async def test_files_as_large_as_the_scratch_space_are_refused_all_together(rig: Rig):
    handle = await evaluator(rig, memory="64Mi")

    written = [(await inside(handle, f"fill('/tmp/{name}')"))[0] for name in "ab"]

    assert written == [32 << 20, 0]


async def test_scratch_space_is_not_shared(rig: Rig):
    one, other = await evaluator(rig), await evaluator(rig)

    await inside(one, "Path('/tmp/mine').write_text('x')")

    assert await inside(other, "os.listdir('/tmp')") == []


async def test_open_files_are_limited(rig: Rig):
    handle = await evaluator(rig, concurrency=3)

    assert await inside(handle, "resource.getrlimit(resource.RLIMIT_NOFILE)") == [1030, 1030]


async def test_cpu_over_the_limit_is_not_given(rig: Rig):
    handle = await evaluator(rig, cpu_limit="200m")

    assert await inside(handle, "spin(0.2)") > 2


async def test_an_instance_of_several_cores_may_leave_the_one_of_its_lane(make_rig: MakeRig, tmp_path: Path):
    cores = os.sched_getaffinity(0)
    require(len(cores) > 1, "a second core")
    async with make_rig(tmp_path) as rig:
        os.sched_setaffinity(0, {min(cores)})
        try:
            narrow, wide = await evaluator(rig, cpu_limit="1000m"), await evaluator(rig, cpu_limit="1500m")
        finally:
            os.sched_setaffinity(0, cores)

        assert await inside(narrow, "len(os.sched_getaffinity(0))") == 1
        assert await inside(wide, "len(os.sched_getaffinity(0))") > 1


@pytest.mark.parametrize(
    "action",
    [
        "os.setuid, 0",
        "os.chroot, '/tmp'",
        "os.mknod, '/tmp/disk', 0o60600, os.makedev(254, 0)",
        "socket.sethostname, 'other'",
        "os.nice, -5",
    ],
)
async def test_what_takes_power_is_refused(rig: Rig, action: str):
    handle = await evaluator(rig)

    # Where a user namespace has one id only, it has no word for others.
    assert await inside(handle, f"refusal({action})") in (errno.EPERM, errno.EINVAL)


async def test_setuid_programs_have_no_power(rig: Rig):
    require(Path("/usr/bin/su").exists(), "su")
    handle = await evaluator(rig)

    options = await inside(handle, "[line.split()[3] for line in open('/proc/mounts') if ' /usr ' in line]")

    assert "nosuid" in options[0]
