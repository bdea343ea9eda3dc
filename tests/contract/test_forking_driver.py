"""What every driver holds to that forks instances from templates, and what the process sandbox makes of it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers.contract import check_health
from martlet.drivers.driver import DriverError, Forking, Handle, LoadFailed, Unforkable
from martlet.http.fetch import FetchError
from tests.driver_rigs import LANE, SECONDS, Rig, ask, eventually, fake_rig, lasting, process_rig

pytestmark = pytest.mark.anyio

RIGS = [pytest.param(process_rig, id="process", marks=pytest.mark.root), pytest.param(fake_rig, id="fake")]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that lanes run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", params=RIGS)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """One driver for the tests that any passes."""
    async with lasting(request.param) as rig:
        yield rig


@pytest.fixture
async def rig(shared: Rig) -> AsyncIterator[Rig]:
    """The driver, with nothing in it."""
    yield shared
    await shared.clear()


@pytest.fixture(scope="module")
async def process_sandbox() -> AsyncIterator[Rig]:
    """One driver for the tests of the sandbox."""
    async with lasting(process_rig) as rig:
        yield rig


@pytest.fixture
async def sandbox(process_sandbox: Rig) -> AsyncIterator[Rig]:
    """The driver of processes, with nothing in it."""
    yield process_sandbox
    await process_sandbox.clear()


async def forks(rig: Rig, source: str, count: int = 2, **config: Any) -> list[Handle]:
    template = await rig.template("f", source=source, **config)
    return await asyncio.gather(*(rig.fork(template) for _ in range(count)))


async def say(handle: Handle, document: Any = None) -> Any:
    return json.loads(await ask(handle, document))


# -- every driver


async def test_a_fork_does_what_its_template_has_loaded(rig: Rig):
    template = await rig.template("echo")

    first, second = await asyncio.gather(rig.fork(template), rig.fork(template))

    assert await ask(first, "a") == b'"a"'
    assert await ask(second, "b") == b'"b"'
    assert Handle.from_json(first.to_json()) == first
    assert {first.driver, second.driver} == {rig.driver.name}


async def test_many_instances_are_forked_at_once(rig: Rig):
    template = await rig.template("echo")

    handles = await asyncio.gather(*(rig.fork(template) for _ in range(50)))

    assert len({handle.socket for handle in handles}) == 50
    answers = await asyncio.gather(*(ask(handle, handle.id) for handle in handles))
    assert answers == [f'"{handle.id}"'.encode() for handle in handles]


async def test_a_fork_that_nobody_waits_for_any_more_leaves_nothing(rig: Rig):
    template = await rig.template("echo")
    assert isinstance(rig.driver, Forking)
    for pause in (0.0, 0.001, 0.01):
        spec = rig.spec(f"cancelled-{pause}")
        fork = asyncio.create_task(rig.driver.fork(template, spec))
        await asyncio.sleep(pause)
        fork.cancel()
        await asyncio.gather(fork, return_exceptions=True)
        if not fork.cancelled():
            await rig.driver.destroy(fork.result())
        assert not spec.directory.exists()
    assert await ask(await rig.fork(template), "still") == b'"still"'


async def test_code_that_must_not_be_forked_says_why(rig: Rig):
    with pytest.raises(Unforkable, match="loading it started a thread"):
        await rig.template("threaded")


async def test_a_template_of_code_that_does_not_load_says_why(rig: Rig):
    with pytest.raises(LoadFailed, match="ValueError: this module has no wish to load"):
        await rig.template("unloadable")


async def test_a_fork_that_ends_is_reported_once_and_leaves_its_sibling(rig: Rig):
    template = await rig.template("crash")
    first, second = await rig.fork(template), await rig.fork(template)

    with pytest.raises(FetchError):
        await ask(first)

    await eventually(lambda: rig.exits, "the exit is reported")
    await check_health(second.socket, SECONDS)
    await rig.driver.destroy(first)
    assert rig.exits == [(first.id, 1)]


async def test_a_destroyed_fork_is_gone_without_a_report(rig: Rig):
    template = await rig.template("echo")
    first, second = await rig.fork(template), await rig.fork(template)

    await rig.driver.destroy(first)

    assert not Path(first.socket).parent.exists()
    assert await rig.driver.stats(first) is None
    assert await ask(second, "b") == b'"b"'
    assert rig.exits == []


async def test_forks_end_with_their_template(rig: Rig):
    template = await rig.template("echo")
    first, second = await rig.fork(template), await rig.fork(template)

    await rig.driver.destroy(template)

    await eventually(lambda: len(rig.exits) == 2, "both exits are reported")
    assert sorted(rig.exits) == sorted([(first.id, -signal.SIGKILL), (second.id, -signal.SIGKILL)])
    with pytest.raises(DriverError, match="gone"):
        await rig.fork(template)
    for handle in (first, second):
        await rig.driver.destroy(handle)
        assert not Path(handle.socket).parent.exists()


async def test_what_a_fork_prints_comes_out_of_its_own_log(rig: Rig):
    template = await rig.template("talk")
    first, second = await rig.fork(template), await rig.fork(template)
    logs = [handle.log for handle in (template, first, second)]
    readers = {log: os.open(log, os.O_RDONLY | os.O_NONBLOCK) for log in logs}
    try:
        await ask(first)
        assert b"said by the function" in os.read(readers[first.log], 4096)
        for silent in (template.log, second.log):
            with pytest.raises(BlockingIOError):
                os.read(readers[silent], 4096)
    finally:
        for reader in readers.values():
            os.close(reader)


async def test_closing_leaves_neither_templates_nor_forks(rig: Rig):
    """It is the last with this driver, which is closed for good."""
    template = await rig.template("echo")
    handles = [template, await rig.fork(template)]

    await rig.driver.close()

    assert not any(Path(handle.socket).parent.exists() for handle in handles)
    assert rig.exits == []


# -- the process sandbox


RANDOM = """
import os, random, secrets, ssl, tempfile, uuid
loaded_by = os.getpid()
random.seed(1)
uuid.uuid1(); ssl.RAND_bytes(1); next(tempfile._get_candidate_names())
state = {"loaded": True}

def handle(request):
    return {
        "state": state, "loaded_by": loaded_by, "pid": os.getpid(), "random": random.random(),
        "token": secrets.token_hex(), "ssl": ssl.RAND_bytes(8).hex(), "node": uuid.uuid1().node,
        "uuid": str(uuid.uuid4()), "folder": tempfile.gettempdir(), "home": os.environ["HOME"],
        "name": next(tempfile._get_candidate_names()), "session": os.getsid(0),
    }
"""


@pytest.mark.root
async def test_forks_share_what_was_loaded_and_nothing_that_must_differ(sandbox: Rig):
    first, second = [await say(handle) for handle in await forks(sandbox, RANDOM)]

    assert first["state"] == second["state"] == {"loaded": True}
    assert first["loaded_by"] == second["loaded_by"] == 1
    same = {name for name in first if first[name] == second[name]}
    assert same == {"state", "loaded_by"}


@pytest.mark.root
async def test_forks_draw_other_numbers_from_numpy(sandbox: Rig):
    source = """
import numpy
numpy.random.seed(1)

def handle(request): return float(numpy.random.rand())
"""
    template = await sandbox.template(
        "f",
        source=source,
        dependencies=sandbox.installed(["numpy", "numpy.libs"]),
        environment={"OPENBLAS_NUM_THREADS": "1"},  # as on a lane, which has one core
    )

    assert await say(await sandbox.fork(template)) != await say(await sandbox.fork(template))


@pytest.mark.root
async def test_hooks_of_the_code_run_in_each_fork(sandbox: Rig):
    source = """
import os
forks = 0

def count():
    global forks
    forks += 1

os.register_at_fork(after_in_child=count)

def handle(request): return {"forks": forks}
"""
    for handle in await forks(sandbox, source):
        assert await say(handle) == {"forks": 1}


@pytest.mark.root
async def test_files_of_a_fork_lie_apart_and_go_with_it(sandbox: Rig):
    source = """
import os, pathlib, tempfile

def handle(request):
    folder = pathlib.Path(tempfile.gettempdir())
    (folder / "file").write_text(request.get_text())
    return {"mine": sorted(os.listdir(folder)), "all": sorted(os.listdir(folder.parent))}
"""
    template = await sandbox.template("f", source=source)
    first, second = await sandbox.fork(template), await sandbox.fork(template)

    assert (await say(first, "a"))["mine"] == ["file"]
    assert (await say(second, "b"))["all"] == sorted([first.id, second.id])

    await sandbox.driver.destroy(first)
    async with asyncio.timeout(SECONDS):
        while (await say(second, "b"))["all"] != [second.id]:
            await asyncio.sleep(0.005)


@pytest.mark.root
async def test_memory_is_limited_for_each_fork(sandbox: Rig):
    source = """
def handle(request):
    if request.get_json(): return str(len(bytearray(1 << 30)))
    return "fine"
"""
    first, second = await forks(sandbox, source, memory="64Mi")

    with pytest.raises(FetchError):
        await ask(first, ["eat"])

    await eventually(lambda: sandbox.exits, "the exit is reported")
    assert sandbox.exits == [(first.id, -signal.SIGKILL)]
    eaten, left = await sandbox.driver.stats(first), await sandbox.driver.stats(second)
    assert eaten is not None
    assert left is not None
    assert (eaten.oom_kills, left.oom_kills) == (1, 0)
    assert await ask(second) == b"fine"


@pytest.mark.root
async def test_processes_are_limited_for_each_fork(sandbox: Rig):
    source = """
import os, time

def handle(request):
    started = 0
    try:
        while started < 1000:
            if os.fork() == 0:
                time.sleep(600)
            started += 1
    except OSError:
        return {"started": started}
"""
    first, second = await forks(sandbox, source)

    assert await say(first) == {"started": 131}
    assert await say(second) == {"started": 131}

    await sandbox.driver.destroy(first)
    stats = await sandbox.driver.stats(second)
    assert stats is not None
    assert stats.processes == 132


UNFORKABLE = {
    "a process": "import os, time\nif os.fork() == 0: time.sleep(600)",
    "/function/handler.py open": "file = open('handler.py')",
    "socket": "import socket\nconnection = socket.socketpair()",
    "event": "import asyncio\nloop = asyncio.new_event_loop()",
    "forks would share": "import mmap\nmemory = mmap.mmap(-1, 4096)",
    "temporary files": "import tempfile\nfolder = tempfile.gettempdir()",
    "left files": "import os\nopen(os.environ['HOME'] + '/state', 'w').close()",
    "names /tmp": "PATH = '/tmp/result'",
}


@pytest.mark.root
@pytest.mark.parametrize("reason", UNFORKABLE)
async def test_code_that_a_fork_would_tear_or_share_is_not_forked(sandbox: Rig, reason: str):
    with pytest.raises(Unforkable, match=reason):
        await sandbox.template("f", source=f"{UNFORKABLE[reason]}\ndef handle(request): return 'done'")


@pytest.mark.root
async def test_a_lane_that_observes_calls_does_not_fork(tmp_path: Path):
    async with process_rig(tmp_path, lane=LANE + 1, on_observed=lambda _, heard: os.close(heard)) as rig:
        with pytest.raises(Unforkable, match="unobserved"):
            await rig.template("echo")


@pytest.mark.root
async def test_every_kind_of_handler_that_is_safe_is_forked(sandbox: Rig):
    sources = [
        "async def handle(request): return 'done'",
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'done']",
    ]
    for source in sources:
        for handle in await forks(sandbox, source, handler="handle" if "handle" in source else "app"):
            assert await ask(handle) == b"done"


LIES = {
    "not in its cgroup": """
def lie(self, name, listener, *others):
    self._tell("forked", id=name)
    return socket.socket(fileno=listener)
""",
    "it is gone": """
def lie(self, name, *others):
    while True:
        self._tell("exited", id="another", code=0)
""",
    "ended with 7": """
def lie(self, name, *others): os._exit(7)
""",
}


@pytest.mark.root
@pytest.mark.parametrize("words", LIES)
async def test_a_template_is_not_believed(sandbox: Rig, words: str):
    """What the code of a function may do to the shim that it runs in."""
    patch = "sys.modules['_martlet_python.template'].Template._become_instance = lie"
    source = f"import os, socket, sys\n{LIES[words]}\n{patch}\ndef handle(request): return 'done'"
    template = await sandbox.template("f", source=source)

    with pytest.raises(DriverError, match=words):
        await sandbox.fork(template)

    assert await ask(await sandbox.instance("echo"), "a") == b'"a"'
    await sandbox.driver.destroy(template)
    assert set(sandbox.exits) <= {(template.id, 0)}


@pytest.mark.root
async def test_a_fork_is_asked_to_stop_before_it_is_ended(sandbox: Rig):
    (handle,) = await forks(
        sandbox, "import atexit\natexit.register(print, 'bye', flush=True)\ndef handle(r): return 'here'", 1
    )
    reader = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await ask(handle)  # it serves: a fork that is told before that has nothing to finish
        status = Path(f"/proc/{handle.pid}/stat")
        await eventually(lambda: status.read_text().rpartition(") ")[2][0] == "S", "it waits")
        await sandbox.driver.stop(handle, grace=SECONDS)
        assert b"bye" in os.read(reader, 4096)
    finally:
        os.close(reader)


@pytest.mark.root
async def test_a_template_that_is_killed_takes_its_forks_along(sandbox: Rig):
    template = await sandbox.template("echo")
    handle = await sandbox.fork(template)
    assert template.pid is not None

    os.kill(template.pid, signal.SIGKILL)

    await eventually(lambda: len(sandbox.exits) == 2, "both exits are reported")
    assert sorted(sandbox.exits) == sorted([(handle.id, -signal.SIGKILL), (template.id, -signal.SIGKILL)])
    with pytest.raises(DriverError, match="gone"):
        await sandbox.fork(template)
