"""Functions that are served by a program, whatever it does: the warden that starts it, and what it is started in."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from martlet.drivers.driver import Handle, LoadFailed
from martlet.http.fetch import FetchError, fetch
from tests.driver_rigs import SECONDS, Rig, ask, eventually, process_rig, program_rig
from tests.processes import status_of

pytestmark = [pytest.mark.anyio, pytest.mark.root]

DELAYED_ACKNOWLEDGEMENT = 0.04
"""Seconds for which Linux puts an acknowledgement off, and Nagle's algorithm what is to be sent after it."""
WAYS = ("{interpreter}", "-I", "-S", "{runtime}/ways.py")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["warm", "cold"])
async def shared_rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    async with program_rig(tmp_path_factory.mktemp("rig"), cell=request.param, command=WAYS) as rig:
        yield rig


@pytest.fixture
async def rig(shared_rig: Rig) -> AsyncIterator[Rig]:
    yield shared_rig
    await shared_rig.clear()


async def instance(rig: Rig, handler: str, **config: Any) -> Handle:
    """An instance of a program that does what the handler names."""
    return await rig.instance("program", source="-", handler=handler, **config)


async def get(handle: Handle, path: str = "/") -> bytes:
    status, body = await fetch(handle.socket, "GET", path, timeout=SECONDS)
    assert status == 200
    return body


async def failure(rig: Rig, handler: str, **options: Any) -> LoadFailed:
    """How the code of such a program does not load."""
    handle = await rig.start()
    with pytest.raises(LoadFailed) as caught:
        await rig.specialise(handle, "program", source="-", handler=handler, **options)
    await rig.driver.destroy(handle)
    return caught.value


async def test_a_program_is_told_what_it_serves(rig: Rig):
    handle = await instance(rig, "specification", environment={"GREETING": "hej"}, memory="64Mi")

    assert json.loads(await get(handle)) == {
        "function": "program",
        "revision": 1,
        "code": "/function",
        "dependencies": None,
        "handler": "specification",
        "environment": {"GREETING": "hej"},
        "concurrency": 1,
        "max_body": 20 << 20,
        "memory": 64 << 20,
    }


async def test_a_program_has_what_the_protocol_gives_it_and_nothing_else(
    rig: Rig, request: pytest.FixtureRequest
):
    handle = await instance(rig, "surroundings", environment={"GREETING": "hej"})

    found = json.loads(await get(handle))

    kinds = {name: kind.rpartition("/")[2] for name, kind in found["descriptors"].items()}
    assert kinds == {"0": "pipe", "1": "log", "2": "log", "3": "socket", "4": "pipe"}
    assert found["folder"] == "/function"
    assert found["parent"] == 1
    assert found["session"]
    assert found["blocked"] == []
    assert found["environment"].items() >= {"HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}.items()
    cold = {
        "GREETING": "hej",
        "MARTLET_FUNCTION": "program",
        "MARTLET_CODE": "/function",
        "MARTLET_DEPENDENCIES": "",
    }
    given = found["environment"].items() >= cold.items()
    assert given == (request.node.callspec.params["shared_rig"] == "cold")


async def test_a_program_that_knows_what_is_wrong_with_the_code_is_heard(rig: Rig):
    error = await failure(rig, "wrong")

    assert (error.kind, str(error), error.traceback) == (
        "SyntaxError",
        "SyntaxError: unexpected end",
        "line 1",
    )


@pytest.mark.parametrize("handler", ["silent", "garbage", "endless", "untrue", "infinite", "nested"])
async def test_what_a_program_says_is_not_believed(rig: Rig, handler: str):
    assert (await failure(rig, handler)).kind == "BadAnswer"


@pytest.mark.parametrize(("handler", "how"), [("end", "exit code 7"), ("killed", "signal 11")])
async def test_a_program_that_ends_before_it_serves_says_how(rig: Rig, handler: str, how: str):
    error = await failure(rig, handler)

    assert error.kind == "Crashed"
    assert how in str(error)


async def test_a_program_that_never_answers_is_ended(rig: Rig):
    error = await failure(rig, "never", deadline=0.3)

    assert error.kind == "Timeout"


@pytest.mark.parametrize(("path", "code"), [("/end", 3), ("/kill", 128 + signal.SIGKILL)])
async def test_an_instance_ends_as_its_program_does(rig: Rig, path: str, code: int):
    handle = await instance(rig, "serve")
    assert await get(handle) == b"served"

    with pytest.raises(FetchError):
        await get(handle, path)

    await eventually(lambda: rig.exits == [(handle.id, code)], "the exit is reported")


async def test_a_program_is_asked_to_end_before_it_is_made_to(rig: Rig):
    handle = await instance(rig, "graceful")
    reader = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with asyncio.timeout(SECONDS):
            await rig.driver.stop(handle, grace=10 * SECONDS)
        assert b"finished what ran" in os.read(reader, 4096)
    finally:
        os.close(reader)
    assert rig.exits == []


async def test_a_program_that_does_not_end_when_asked_is_made_to(rig: Rig):
    handle = await instance(rig, "stubborn")

    async with asyncio.timeout(SECONDS):
        await rig.driver.stop(handle, grace=0.1)

    with pytest.raises(FetchError):
        await get(handle)


async def test_orphans_are_waited_for(rig: Rig):
    handle = await instance(rig, "orphans")

    async def processes() -> int:
        stats = await rig.driver.stats(handle)
        assert stats is not None
        return stats.processes

    while await processes() > 2:  # the warden and its program
        await asyncio.sleep(0.01)


async def test_a_warm_program_that_has_died_is_started_again_with_the_code(tmp_path: Path):
    async with program_rig(
        tmp_path, command=("/bin/sh", "-c", '[ -n "$MARTLET_CODE" ] && exec "$@"', "sh", *WAYS)
    ) as rig:
        handle = await rig.start()
        children = Path(f"/proc/{handle.pid}/task/{handle.pid}/children")
        program = await eventually(children.read_text, "it had not started")
        await eventually(lambda: status_of(int(program))["State"][0] == "Z", "it had not died")
        await rig.specialise(handle, "program", source="-", handler="serve")

        assert await get(handle) == b"served"


async def test_a_program_that_is_not_there_is_named(tmp_path: Path):
    async with program_rig(tmp_path, command=("/usr/bin/no-such-language",)) as rig:
        error = await failure(rig, "serve")

    assert error.kind == "Crashed"
    assert "/usr/bin/no-such-language" in str(error)


async def test_a_program_with_a_socket_of_its_own_is_relayed_to(tmp_path: Path):
    async with program_rig(tmp_path, listen="socket") as rig:
        handle = await rig.instance("echo")
        document = ["x" * 3_000_000]

        assert json.loads(await ask(handle, document)) == document
        assert await asyncio.gather(*(ask(handle, n) for n in range(20))) == [b"%d" % n for n in range(20)]

        crash = await rig.instance("crash")
        with pytest.raises(FetchError):
            await ask(crash)
        await eventually(lambda: rig.exits == [(crash.id, 1)], "the exit is reported")
        async with asyncio.timeout(SECONDS):
            await rig.driver.stop(handle, grace=10 * SECONDS)


async def test_requests_over_stdin_reach_as_many_processes_as_there_may_be_requests(tmp_path: Path):
    command = (*WAYS, "stdio")
    async with program_rig(tmp_path, listen="stdio", command=command) as rig:
        handle = await instance(rig, "talk", concurrency=2)

        one = (await ask(handle, "a")).split()
        assert one[1:] == [b"1", b'"a"']
        assert (await ask(handle, "b")).split() == [one[0], b"2", b'"b"']
        assert await get(handle, "/chunks") == b"onetwo"
        assert json.loads(await get(handle, "/_martlet/health")) == {"status": "ok"}
        answers = await asyncio.gather(get(handle, "/sleep"), get(handle, "/sleep"))
        assert len({answer.split()[0] for answer in answers}) == 2

        with pytest.raises(FetchError):
            await get(handle, "/end")
        await eventually(lambda: rig.exits == [(handle.id, 3)], "the exit is reported")


async def test_a_warm_program_may_open_its_pipes_by_name(tmp_path: Path):
    pipes = '[ -z "$MARTLET_CODE" ] && : </dev/fd/0 >/dev/fd/1 && : </dev/fd/3 >/dev/fd/4 && exec "$@"'
    command = ("/bin/sh", "-c", pipes, "sh", *WAYS, "stdio")
    async with program_rig(tmp_path, listen="stdio", command=command) as rig:
        assert (await get(await instance(rig, "talk"))).split()[1] == b"1"


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path_factory.mktemp("rig"), runtime="http") as rig:
        yield rig


SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


async def test_any_server_on_a_port_is_a_function(http: Rig):
    handle = await http.start()
    loaded = await http.specialise(handle, "server", source=SERVER, concurrency=10)

    assert loaded.mode == "http"
    assert await asyncio.gather(*(ask(handle, n) for n in range(10))) == [b"%d" % n for n in range(10)]
    assert json.loads(await ask(handle, ["x" * 1_000_000])) == ["x" * 1_000_000]
    assert json.loads(await get(handle, "/_martlet/health")) == {"status": "ok"}


async def test_a_server_that_sends_head_and_body_apart_is_not_kept_waiting(http: Rig):
    handle = await http.start()
    await http.specialise(handle, "server", source=SERVER)

    took = await asyncio.to_thread(_ask_again_and_again, str(handle.socket), 100)

    # The first are acknowledged at once in any case; of the others a busy machine delays many, and that delays all.
    assert quantiles(took[50:])[0] < DELAYED_ACKNOWLEDGEMENT


def _ask_again_and_again(path: str, count: int) -> list[float]:
    """Seconds that each of ``count`` requests on one connection takes."""
    connection = HTTPConnection("instance")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    took = []
    for _ in range(count):
        began = time.monotonic()
        connection.request("POST", "/", b"body")
        assert connection.getresponse().read() == b"body"
        took.append(time.monotonic() - began)
    connection.close()
    return took


async def test_a_server_may_have_a_port_of_its_choice(http: Rig):
    handle = await http.start()
    await http.specialise(handle, "server", source=SERVER, environment={"PORT": "8123"}, handler="handler.py")

    assert await ask(handle, 1) == b"1"


@pytest.mark.parametrize(
    ("source", "config", "kind", "words"),
    [
        ("raise SystemExit(5)", {}, "Crashed", "exit code 5"),
        (SERVER, {"handler": "server"}, "HandlerNotFound", "no file server"),
        (SERVER, {"environment": {"PORT": "http"}}, "Crashed", "no port"),
    ],
)
async def test_a_server_that_does_not_come_says_why(
    http: Rig, source: str, config: dict[str, Any], kind: str, words: str
):
    handle = await http.start()

    with pytest.raises(LoadFailed, match=words) as caught:
        await http.specialise(handle, "server", source=source, **config)

    assert caught.value.kind == kind


async def test_a_server_on_another_port_is_told_from_code_that_loads_slowly(http: Rig):
    handle = await http.start()
    elsewhere = SERVER.replace('int(os.environ["PORT"])', "9999")

    with pytest.raises(
        LoadFailed, match=r"the port that \$PORT names within 2 s, but it listens on 9999\."
    ) as caught:
        await http.specialise(handle, "server", source=elsewhere, deadline=2.0)

    assert caught.value.kind == "Timeout"
