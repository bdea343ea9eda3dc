"""What every driver holds to. A driver joins by a rig in `RIGS`."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from martlet.drivers.contract import check_health
from martlet.drivers.driver import Connecting, DriverError, Handle, LoadFailed, Preparing, State
from martlet.drivers.fake import FakeDriver
from martlet.http.fetch import FetchError
from martlet.sandbox.engine import ENGINES
from tests.driver_rigs import (
    SECONDS,
    Rig,
    ask,
    container_rig,
    docker_rig,
    eventually,
    fake_rig,
    lasting,
    microvm_rig,
    podman_rig,
    printed,
    process_rig,
    program_rig,
)

pytestmark = pytest.mark.anyio

ENGINE = [pytest.mark.root, pytest.mark.engine]
RIGS = [
    *(pytest.param(partial(container_rig, engine=engine), id=engine, marks=ENGINE) for engine in ENGINES),
    pytest.param(process_rig, id="process", marks=pytest.mark.root),
    pytest.param(partial(program_rig, cell="warm"), id="warm-program", marks=pytest.mark.root),
    pytest.param(partial(program_rig, cell="cold"), id="cold-program", marks=pytest.mark.root),
    pytest.param(docker_rig, id="docker", marks=ENGINE),
    pytest.param(podman_rig, id="podman", marks=ENGINE),
    # The first test with it makes a guest and saves a machine, where there is none yet.
    pytest.param(microvm_rig, id="microvm", marks=[*ENGINE, pytest.mark.timeout(900)]),
    pytest.param(fake_rig, id="fake"),
]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that lanes run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", params=RIGS)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """One driver for all tests."""
    async with lasting(request.param) as rig:
        yield rig


@pytest.fixture
async def rig(shared: Rig) -> AsyncIterator[Rig]:
    """The driver, with nothing in it."""
    yield shared
    await shared.clear()


async def answers(handle: Handle) -> bool:
    try:
        await check_health(handle.socket, SECONDS)
    except FetchError:
        return False
    return True


async def test_this_host_lacks_nothing(rig: Rig):
    assert [each for each in rig.driver.probe() if each.state is not State.HELD] == []


async def test_a_cell_is_healthy_before_it_has_code(rig: Rig):
    handle = await rig.start()

    await check_health(handle.socket, SECONDS)


async def test_a_cell_leaves_the_devices_of_the_machine_as_they_are(rig: Rig):
    before = os.stat(os.devnull)

    handle = await rig.start()

    assert await answers(handle)
    after = os.stat(os.devnull)
    # Who gives it to somebody, be it to whom it belonged, changes this time.
    assert (after.st_uid, after.st_gid, after.st_mode, after.st_ctime_ns) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
        before.st_ctime_ns,
    )


async def test_a_handle_survives_being_written_down(rig: Rig):
    handle = await rig.start()

    assert Handle.from_json(handle.to_json()) == handle
    assert handle.driver == rig.driver.name


async def test_a_specialised_cell_answers_requests(rig: Rig):
    handle = await rig.start()
    loaded = await rig.specialise(handle, "echo")

    assert await ask(handle, ["a", 1]) == b'["a",1]'
    assert loaded.mode in ("sync", "async")
    assert loaded.load_ms >= 0


async def test_a_cell_that_is_given_code_before_it_has_answered_takes_it(rig: Rig):
    handle = await rig.start(urgent=True)
    await rig.specialise(handle, "echo")

    assert await ask(handle, "x") == b'"x"'
    known = await rig.driver.identify(handle)
    assert known == replace(handle, pid=known.pid)
    assert (known.pid is None) == isinstance(rig.driver, FakeDriver)


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_cell_whose_place_was_made_ahead_is_like_any_other(rig: Rig, urgent: bool):
    if not isinstance(rig.driver, Preparing):
        pytest.skip("it makes nothing ahead")
    spec = replace(rig.spec("ahead"), urgent=urgent)
    await rig.driver.prepare(spec.id, spec.directory)

    handle = await rig.driver.start(spec)
    rig.started.append(handle)
    await rig.specialise(handle, "hog", memory="64MiB")
    with pytest.raises(FetchError):
        await ask(handle)

    stats = await rig.driver.stats(handle)
    assert stats is not None
    assert stats.oom_kills >= 1
    await rig.driver.destroy(handle)
    assert not spec.directory.exists()


async def test_the_connection_over_which_a_cell_got_its_code_carries_requests_if_it_goes_on(rig: Rig):
    if not isinstance(rig.driver, Connecting):
        pytest.skip("it leaves its connections to nobody")
    handle = await rig.start()

    conversation = await rig.specialise_connected(handle, "echo")

    assert (conversation is not None) == rig.goes_on
    if conversation is not None:
        answer = await conversation.ask("POST", "/", ["a", 1], timeout=SECONDS, at_most=1000)
        assert answer == (200, b'["a",1]')
        conversation.close()
    assert await ask(handle, ["b"]) == b'["b"]'


async def test_instances_of_several_functions_do_not_meet(rig: Rig):
    echo, talk = await rig.instance("echo"), await rig.instance("talk")

    assert await ask(echo, "x") == b'"x"'
    assert await ask(talk, "x") == b"done"


async def test_code_that_does_not_load_says_why(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match="ValueError: this module has no wish to load") as caught:
        await rig.specialise(handle, "unloadable")

    assert caught.value.kind == "ValueError"
    assert "Traceback" in caught.value.traceback


async def test_code_that_loads_too_long_is_ended(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match=r"within 0\.2 s") as caught:
        await rig.specialise(handle, "slow", deadline=0.2)

    assert caught.value.kind == "Timeout"
    assert not await answers(handle)
    assert rig.exits == []


async def test_an_instance_that_ends_by_itself_is_reported_once(rig: Rig):
    handle = await rig.instance("crash")

    with pytest.raises(FetchError):
        await ask(handle)

    await eventually(lambda: rig.exits, "the exit is reported")
    await rig.driver.destroy(handle)
    assert rig.exits == [(handle.id, 1)]


async def test_a_cell_that_is_gone_takes_no_code(rig: Rig):
    handle = await rig.instance("crash")
    with pytest.raises(FetchError):
        await ask(handle)
    await eventually(lambda: rig.exits, "the exit is reported")

    with pytest.raises(DriverError, match="gone") as caught:
        await rig.specialise(handle, "echo")

    assert not isinstance(caught.value, LoadFailed)


async def test_an_instance_does_not_become_another(rig: Rig):
    handle = await rig.instance("talk")

    with pytest.raises(DriverError) as caught:
        await rig.specialise(handle, "echo")

    assert not isinstance(caught.value, LoadFailed)
    assert await ask(handle) == b"done"


async def test_an_instance_out_of_memory_is_counted_until_it_is_destroyed(rig: Rig):
    handle = await rig.instance("hog", memory="32Mi")

    with pytest.raises(FetchError):
        await ask(handle)

    await eventually(lambda: rig.exits, "the exit is reported")
    await asyncio.sleep(0.2)  # whoever buries it leaves what was counted
    stats = await rig.driver.stats(handle)
    assert stats is not None
    assert stats.oom_kills >= 1  # where a kernel of its own is a process, both may be killed


async def test_stats_count_what_an_instance_uses(rig: Rig):
    handle = await rig.instance("echo")

    stats = await rig.driver.stats(handle)

    assert stats is not None
    assert stats.memory_bytes > 0
    assert stats.cpu_ms > 0
    assert stats.processes >= 1
    assert stats.oom_kills == 0
    # Who has brought it into its container may be about to end.
    while stats.processes > rig.processes:
        await asyncio.sleep(0.05)
        stats = await rig.driver.stats(handle)
        assert stats is not None


async def test_a_destroyed_instance_is_gone_without_a_report(rig: Rig):
    handle = await rig.instance("hang")
    request = asyncio.create_task(ask(handle))
    await asyncio.sleep(0)

    await rig.driver.destroy(handle)

    with pytest.raises(FetchError):
        await request
    assert not Path(handle.socket).parent.exists()
    assert await rig.driver.stats(handle) is None
    assert rig.exits == []


async def test_destroying_again_does_no_harm(rig: Rig):
    handle = await rig.instance("echo")

    await asyncio.gather(*(rig.driver.destroy(handle) for _ in range(3)))
    await rig.driver.destroy(handle)


async def test_remains_of_an_unknown_cell_are_removed(rig: Rig):
    spec = rig.spec("left-behind")
    (spec.directory / "sock").touch()
    remains = Handle(
        "left-behind", rig.driver.name, spec.runtime, f"{spec.directory}/sock", f"{spec.directory}/log"
    )

    await rig.driver.destroy(remains)

    assert not spec.directory.exists()


async def test_what_lives_here_is_recovered_and_nothing_else(rig: Rig):
    living, destroyed = await rig.instance("echo"), await rig.instance("echo")
    await rig.driver.destroy(destroyed)

    assert await rig.driver.recover(living)
    assert not await rig.driver.recover(destroyed)


async def test_stopping_ends_an_idle_instance_within_its_grace(rig: Rig):
    # One that is told in the instant before it waits hears of it with its next request (`blocking.Server.run`).
    assert await ends_when_told(rig) or await ends_when_told(rig)
    assert rig.exits == []


async def ends_when_told(rig: Rig) -> bool:
    """Whether an idle instance ends long before its grace is over; nothing is left of it in the end anyway."""
    handle = await rig.instance("echo")
    stopping = asyncio.create_task(rig.driver.stop(handle, grace=10 * SECONDS))
    ended, _ = await asyncio.wait([stopping], timeout=SECONDS)
    if not ended:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await rig.driver.destroy(handle)
    assert not await answers(handle)
    assert not Path(handle.socket).parent.exists()
    return bool(ended)


async def test_stopping_does_not_wait_beyond_its_grace(rig: Rig):
    handle = await rig.instance("hang")
    request = asyncio.create_task(ask(handle))
    await asyncio.sleep(0)

    async with asyncio.timeout(SECONDS):
        await rig.driver.stop(handle, grace=0.05)

    with pytest.raises(FetchError):
        await request


async def test_what_an_instance_prints_comes_out_of_its_log(rig: Rig):
    handle = await rig.instance("talk")
    reader = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await ask(handle)
        await printed(reader, b"said by the function")
    finally:
        os.close(reader)


async def test_many_cells_start_at_once(rig: Rig):
    handles = await asyncio.gather(*(rig.start() for _ in range(rig.many)))

    assert len({handle.socket for handle in handles}) == rig.many
    assert all(await asyncio.gather(*map(answers, handles)))


async def test_a_start_that_nobody_waits_for_any_more_leaves_nothing(rig: Rig):
    spec = rig.spec("cancelled")
    for pause in (0.0, 0.001, 0.01):
        start = asyncio.create_task(rig.driver.start(spec))
        await asyncio.sleep(pause)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        if not start.cancelled():
            await rig.driver.destroy(start.result())
        assert not spec.directory.exists()
        spec.directory.mkdir()


async def test_closing_destroys_what_is_there(rig: Rig):
    """It is the last: the driver is closed for good."""
    handles = [await rig.start(), await rig.instance("echo")]

    await rig.driver.close()

    assert not any([await answers(handle) for handle in handles])
    assert not any(Path(handle.socket).parent.exists() for handle in handles)
    assert rig.exits == []
