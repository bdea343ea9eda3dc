"""What a shim must do on the wire that no client of the platform can ask of it: run by itself, spoken to in bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import socket
import tomllib
from pathlib import Path

import pytest

from martlet import runtimes
from tests.conftest import TOOLCHAINS, require
from tests.runtimes import shim

RUNTIMES = Path(runtimes.__file__).resolve().parent
FUNCTIONS = Path(__file__).parent / "functions"
NAMES = ["ruby", "php", "perl", "elixir"]
WAIT_SECONDS = 0.3


@pytest.fixture(scope="module", params=NAMES)
def running(request, tmp_path_factory):
    """A shim that serves its contract function."""
    with serving(request.param, tmp_path_factory.mktemp("shim") / "log") as running:
        yield running


@pytest.fixture(params=NAMES)
def name(request):
    """A runtime with a shim."""
    return request.param


@contextlib.contextmanager
def serving(name, log, concurrency=1):
    """Serves the contract function of a runtime, with what it prints in the file ``log``."""
    description = tomllib.loads((RUNTIMES / name / "runtime.toml").read_text())
    programs = description["toolchain"]["programs"]
    path = os.pathsep.join([os.environ["PATH"], *map(str, TOOLCHAINS.glob("*/bin"))])
    program = next(filter(None, (shutil.which(program, path=path) for program in programs)), None)
    require(program, f"{name}: there is none of {programs} in PATH")
    start = description["start"]
    command = [
        part.format(program=program, runtime=RUNTIMES / name, runtimes=RUNTIMES) for part in start["command"]
    ]
    with (
        log.open("wb") as file,
        shim.running(
            command,
            FUNCTIONS / name,
            environment=start.get("environment"),
            listen=start["listen"],
            concurrency=concurrency,
            log=file,
            wait=WAIT_SECONDS,
        ) as running,
    ):
        assert "mode" in running.answer, running.answer or log.read_text()
        yield running


def exchange(shim, *pieces: bytes) -> bytes:
    """Sends bytes on a new connection and returns all that comes until the shim closes it."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(shim.socket)
        for piece in pieces:
            peer.sendall(piece)
        received = b""
        while data := peer.recv(65536):
            received += data
        return received


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/{version}", "host: a", *headers, "", "")).encode()


CLOSE = "connection: close"


def test_health_is_answered(running):
    answer = exchange(running, get("/_martlet/health", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status":"ok"}')


def test_a_connection_carries_several_requests(running):
    answer = exchange(running, get("/text"), get("/status"), get("/text", CLOSE))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"418", b"200"]


def test_requests_that_come_at_once_are_answered_in_order(running):
    answer = exchange(running, get("/text") + get("/status") + get("/text", CLOSE))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"418", b"200"]


def test_a_request_may_come_in_pieces(running):
    answer = exchange(running, b"GET /te", b"xt HTTP/1.1\r", b"\nconnection: close\r\n\r", b"\n")
    assert answer.endswith("\r\n\r\ntext ✓".encode())


def test_a_chunked_body_is_read(running):
    head = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: text/x\r\nconnection: close\r\n\r\n"
    answer = exchange(running, head, b"3\r\na\0b\r\nA;x=y\r\n0123456789\r\n0\r\n", b"trailer: 1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\na\0b0123456789")
    assert b"content-type: text/x\r\n" in answer


@pytest.mark.parametrize(
    ("framing", "body"), [("content-length: 30000000", b""), ("transfer-encoding: chunked", b"1c9c380\r\n")]
)
def test_a_body_that_is_too_large_is_refused(running, framing, body):
    answer = exchange(running, get("/length", framing, method="POST") + body)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        get("/text", "content-length: 1", "transfer-encoding: chunked"),
        get("/text", "content-length: x"),
        get("/text", "no colon"),
        get("/text", "transfer-encoding: gzip"),
    ],
)
def test_what_is_not_http_is_refused(running, request_bytes):
    assert exchange(running, request_bytes).startswith(b"HTTP/1.1 400 ")


def test_head_is_answered_without_a_body(running):
    head, _, body = exchange(running, get("/text", CLOSE, method="HEAD")).partition(b"\r\n\r\n")
    assert b"content-length: 8" in head
    assert body == b""


def test_a_stream_is_chunked(running):
    head, _, body = exchange(running, get("/stream", CLOSE)).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"


def test_a_stream_ends_with_the_connection_in_http_1_0(running):
    head, _, body = exchange(running, get("/stream", version="1.0")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"one\ntwo\n"


def test_a_response_without_content_has_no_framing(running):
    answer = exchange(running, get("/empty", CLOSE))
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length" not in answer


def test_an_error_names_its_type_and_message(running):
    head, _, body = exchange(running, get("/raise", CLOSE)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    kind = re.search(rb"\r\nx-martlet-error: ([^\r]+)", head)
    document = json.loads(body)
    assert document["message"] == "the reason ✗"
    assert kind is not None
    assert kind[1].decode() == document["type"]


def test_a_header_cannot_split_the_response(running):
    answer = exchange(running, get("/split", CLOSE))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nx-other" not in answer


def test_a_request_that_runs_is_finished_on_sigterm(name, tmp_path):
    with serving(name, tmp_path / "log") as alone, socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(alone.socket)
        peer.sendall(get("/sleep?ms=500"))
        # The second connection shows that the shim is at work on the first.
        exchange(alone, get("/_martlet/health", CLOSE))
        alone.process.terminate()
        assert peer.recv(65536).endswith(b'{"slept":500}')
        assert alone.process.wait(10) == 0


def test_requests_run_at_once(name, tmp_path):
    with serving(name, tmp_path / "log", concurrency=2) as alone, socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(alone.socket)
        peer.sendall(get("/sleep?ms=1000"))
        assert exchange(alone, get("/sleep?ms=1", CLOSE)).endswith(b'{"slept":1}')
        assert select.select([peer], [], [], 0)[0] == []
        assert exchange(alone, get("/_martlet/health", CLOSE)).endswith(b'{"status":"ok"}')
        assert peer.recv(65536).endswith(b'{"slept":1000}')
