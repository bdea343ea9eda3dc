"""What a shim must do on the wire that no client of the platform can ask of it: run by itself, spoken to in bytes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import select
import shutil
import socket
import sys
import termios

import pytest

from tests.runtimes import build
from tests.runtimes.conftest import FUNCTIONS, cannot
from tests.system.conftest import until

LANGUAGES = ["ruby", "php", "perl", "node", "typescript", "deno", "bun", "java", "kotlin", "elixir"]
COMPILED = {"typescript", "java", "kotlin"}
MAX_BODY = 1 << 20
LARGE_HEADER = 60_000
WAIT_SECONDS = 0.3
PATIENCE = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # some are compiled first


@pytest.fixture(scope="module", params=LANGUAGES)
def function(request, tmp_path_factory):
    """The contract function of a language, ready to be served: its runtime and its folder."""
    runtime = build.find(request.param)
    folder = FUNCTIONS / request.param
    if request.param in COMPILED:
        folder = shutil.copytree(folder, tmp_path_factory.mktemp(request.param) / "function")
        built = build.build(runtime, folder)
        assert built.code == 0, built.log + built.answer
    return runtime, folder


@pytest.fixture
def lacks(function):
    """Why the language lacks a feature, by feature."""
    return cannot(FUNCTIONS / function[0].description.name)


@pytest.fixture(scope="module")
def running(function, tmp_path_factory):
    """A shim that serves its contract function."""
    with serving(function, tmp_path_factory.mktemp("shim") / "log") as running:
        yield running


def serving(function, log, concurrency=1):
    """Serves the contract function of a language, with what it prints in the file ``log``."""
    return build.serving(*function, log, concurrency=concurrency, max_body=MAX_BODY, wait=WAIT_SECONDS)


@contextlib.contextmanager
def connected(shim):
    """A connection."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(shim.socket)
        yield peer


def exchange(shim, *pieces: bytes) -> bytes:
    """Sends bytes on a new connection and returns all that comes until the shim closes it."""
    with connected(shim) as peer:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it may close once it has read too much
            for piece in pieces:
                peer.sendall(piece)
        return rest(peer)


def rest(peer) -> bytes:
    """Returns all that comes until the shim closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := peer.recv(65536):
            received += data
    return received


def is_taken(peer) -> bool:
    """Whether the shim has read all that was sent to it."""
    return int.from_bytes(fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)), sys.byteorder) == 0


def statuses(answer: bytes) -> list[int]:
    """Returns the statuses of the responses in what came."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


def parts(answer: bytes) -> tuple[bytes, bytes]:
    """Returns the head of a response in lower case, and its body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), body


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/{version}", "host: a", *headers, "", "")).encode()


CLOSE = "connection: close"


def test_health_is_answered(running):
    answer = exchange(running, get("/_martlet/health", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status":"ok"}')


def test_a_connection_carries_several_requests(running):
    answer = exchange(running, get("/text"), get("/status"), get("/text", CLOSE))
    assert statuses(answer) == [200, 418, 200]


def test_requests_that_come_at_once_are_answered_in_order(running):
    post = get("/status", "content-length: 5", method="POST") + b"GET /"
    answer = exchange(running, get("/text") + post + get("/text", CLOSE))
    assert statuses(answer) == [200, 418, 200]


def test_a_request_may_come_in_pieces(running):
    answer = exchange(running, b"GET /te", b"xt HTTP/1.1\r", b"\nhost: a\r\nconnection: close\r\n\r", b"\n")
    assert answer.endswith("\r\n\r\ntext ✓".encode())


def test_a_request_needs_no_host(running):
    # The gateway passes on what clients of HTTP/1.0 send, as HTTP/1.1.
    assert exchange(running, b"GET /text HTTP/1.1\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_request_is_answered_whose_sender_sends_no_more(running, lacks):
    if reason := lacks.get("half-closed"):
        pytest.skip(reason)
    with connected(running) as peer:
        peer.sendall(get("/sleep?ms=100", CLOSE))
        peer.shutdown(socket.SHUT_WR)
        assert rest(peer).endswith(b'{"slept":100}')


def test_a_chunked_body_is_read(running):
    head = get("/echo", "transfer-encoding: chunked", "content-type: text/x", CLOSE, method="POST")
    answer = exchange(running, head, b"3\r\na\0b\r\nA;x=y\r\n0123456789\r\n0\r\n", b"trailer: 1\r\n\r\n")
    head, body = parts(answer)
    assert b"a\0b0123456789" in body  # perhaps as a chunk
    assert b"content-type: text/x\r\n" in head


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("content-length: 30000000", get("/text")),
        ("transfer-encoding: chunked", b"%x\r\n%b\r\n" % (2 * MAX_BODY, b"x" * 2 * MAX_BODY)),
    ],
)
def test_a_body_that_is_too_large_is_refused_before_its_end(running, framing, body):
    answer = exchange(running, get("/length", framing, method="POST") + body)
    assert statuses(answer) == [413]


def test_large_headers_are_read(running):
    answer = exchange(running, get("/inspect", f"x-large: {'x' * LARGE_HEADER}", CLOSE))
    assert json.loads(parts(answer)[1])["headers"]["x-large"] == "x" * LARGE_HEADER


def test_headers_are_not_read_without_end(running):
    answer = exchange(running, get("/text", *[f"x-{number}: {'x' * 1000}" for number in range(200)]))
    assert statuses(answer) in ([400], [431], [])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        get("/text", "content-length: 1", "transfer-encoding: chunked"),
        get("/text", "content-length: x"),
        get("/text", "content-length: +1"),
        get("/text", "content-length: 1", "content-length: 2"),
        get("/text", "no colon"),
        get("/text", "content-length : 1"),
        get("/text", "x-folded: 1\r\n content-length: 1"),
        get("/text", "transfer-encoding: gzip"),
        get("/text", "transfer-encoding: xchunked"),
        get("/text", "transfer-encoding: chunked", method="POST") + b"0x1\r\na\r\n0\r\n\r\n",
        get("/text", "transfer-encoding: chunked", method="POST") + b"1\r\nab\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(running, request_bytes):
    assert statuses(exchange(running, request_bytes + get("/status"))) == [400]


def test_head_is_answered_without_a_body(running):
    answer = exchange(running, get("/text", method="HEAD"), get("/stream", CLOSE, method="HEAD"))
    first, second = parts(answer)
    assert b"content-length: 8" in first
    assert statuses(second) == [200]
    assert second.endswith(b"\r\n\r\n")


def test_a_stream_is_chunked(running):
    head, body = parts(exchange(running, get("/stream", CLOSE)))
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"


def test_a_stream_ends_with_the_connection_in_http_1_0(running):
    head, body = parts(exchange(running, get("/stream", version="1.0")))
    assert b"transfer-encoding" not in head
    assert body == b"one\ntwo\n"


def test_a_stream_that_fails_is_cut_short(running):
    head, body = parts(exchange(running, get("/break"), get("/text")))
    assert head.startswith(b"http/1.1 200 ")
    assert body == b"4\r\none\n\r\n"


def test_who_leaves_amid_an_exchange_disturbs_nobody(running):
    for piece in (b"GET /te", get("/echo", "content-length: 5", method="POST") + b"123", get("/stream")):
        with connected(running) as peer:
            peer.sendall(piece)
            if piece == get("/stream"):
                assert peer.recv(65536)
    assert statuses(exchange(running, get("/text", CLOSE))) == [200]


@pytest.mark.parametrize(("target", "status"), [("/empty", 204), ("/unmodified", 304)])
def test_a_response_without_content_has_no_body(running, target, status):
    answer = exchange(running, get(target), get("/status", CLOSE))
    head, following = parts(answer)
    assert statuses(answer) == [status, 418]
    assert b"transfer-encoding" not in head
    assert following.startswith(b"HTTP/1.1 418 ")
    assert status == 304 or b"content-length" not in head


def test_an_error_names_its_type_and_message(running):
    head, body = parts(exchange(running, get("/raise", CLOSE)))
    assert head.startswith(b"http/1.1 500 ")
    kind = re.search(rb"\r\nx-martlet-error: ([^\r]+)", head)
    document = json.loads(body)
    assert document["message"] == "the reason ✗"
    assert kind is not None
    assert kind[1].decode() == document["type"].lower()


def test_a_header_cannot_split_the_response(running):
    answer = exchange(running, get("/split", CLOSE))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nx-other" not in answer


def test_a_request_that_runs_is_finished_on_sigterm(function, tmp_path):
    with serving(function, tmp_path / "log") as alone, connected(alone) as peer:
        peer.sendall(get("/sleep?ms=500", CLOSE))
        # Once it has the request, the second connection shows that it is at work on the first.
        until(lambda: is_taken(peer), why="the request is not read")
        exchange(alone, get("/_martlet/health", CLOSE))
        alone.process.terminate()
        assert rest(peer).endswith(b'{"slept":500}')
        assert alone.process.wait(PATIENCE) == 0


def test_requests_run_at_once(function, tmp_path):
    with serving(function, tmp_path / "log", concurrency=2) as alone:

        def overtakes() -> bool:
            """Whether a short request is answered while a long one runs."""
            with connected(alone) as peer:
                peer.sendall(get("/sleep?ms=1000", CLOSE))
                assert exchange(alone, get("/sleep?ms=1", CLOSE)).endswith(b'{"slept":1}')
                was_first = not select.select([peer], [], [], 0)[0]
                assert exchange(alone, get("/_martlet/health", CLOSE)).endswith(b'{"status":"ok"}')
                assert rest(peer).endswith(b'{"slept":1000}')
            return was_first

        # One after the other it never is; both at once, it is not where the machine stood still for a second.
        assert any(overtakes() for _ in range(5))
