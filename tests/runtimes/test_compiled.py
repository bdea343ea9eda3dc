"""Functions of compiled languages by themselves: what their builds take, and what they do on the wire."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.runtimes import build as builds
from tests.runtimes import shim

FUNCTIONS = Path(__file__).parent / "functions"
LANGUAGES = ["go", "rust", "cpp"]
CLOSE = "connection: close"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
]  # the first build of Go compiles its standard library


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds files as a function of a language, without a sandbox."""

    def build_function(language: str, files: dict[str, str], handler: str = "handle") -> builds.Built:
        folder = tmp_path_factory.mktemp(language)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return builds.build(builds.find(language), folder, handler)

    return build_function


@pytest.fixture(scope="module", params=LANGUAGES)
def serving(request, build, tmp_path_factory):
    """The contract function of a language, which serves four requests at once; and its log."""
    source = FUNCTIONS / request.param
    files = {str(path.relative_to(source)): path.read_text() for path in source.rglob("*") if path.is_file()}
    built = build(request.param, files)
    assert built.code == 0, built.log
    log = tmp_path_factory.mktemp("log") / "log"
    program = [built.folder / "function"]
    with log.open("wb") as file, shim.running(program, built.folder, concurrency=4, log=file) as running:
        assert running.answer["mode"] == "handler"
        yield running, log


@pytest.fixture(scope="module")
def exchange(serving):
    """Sends bytes on a new connection and returns all that comes until it is closed."""
    return lambda *pieces: _exchange(serving[0].socket, *pieces)


def _exchange(path: str, *pieces: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(path)
        for piece in pieces:
            peer.sendall(piece)
        received = b""
        while data := peer.recv(65536):
            received += data
        return received


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/{version}", "host: a", *headers, "", "")).encode()


def test_a_connection_carries_several_requests(exchange):
    answer = exchange(get("/text"), get("/status"), get("/text") + get("/text", CLOSE))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"418", b"200", b"200"]


def test_a_request_may_come_in_pieces(exchange):
    answer = exchange(b"GET /te", b"xt HTTP/1.1\r", b"\nhost: a\r\nconnection: close\r\n\r", b"\n")
    assert answer.endswith("\r\n\r\ntext ✓".encode())


def test_a_chunked_body_is_read(exchange):
    head = get("/echo", "transfer-encoding: chunked", "content-type: text/x", CLOSE, method="POST")
    answer = exchange(head, b"3\r\na\0b\r\nA;x=y\r\n0123456789\r\n0\r\n", b"trailer: 1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\na\0b0123456789")
    assert b"content-type: text/x\r\n" in answer.replace(b"Content-Type", b"content-type")


def test_a_body_that_is_too_large_is_refused(exchange):
    assert exchange(get("/length", "content-length: 30000000", method="POST")).startswith(b"HTTP/1.1 413 ")
    chunk = b"%x\r\n%b\r\n" % (21 << 20, b"x" * (21 << 20))
    head = get("/length", "transfer-encoding: chunked", method="POST")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        assert exchange(head, chunk).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "data", [b"hello\r\n\r\n", get("/text", "content-length: x"), get("/text", "no colon"), get("/a b")]
)
def test_what_is_not_http_is_refused(exchange, data):
    assert exchange(data).startswith(b"HTTP/1.1 400 ")


def test_head_is_answered_without_a_body(exchange):
    head, _, body = exchange(get("/text", CLOSE, method="HEAD")).partition(b"\r\n\r\n")
    assert b"content-length: 8" in head.lower()
    assert body == b""


def test_a_stream_is_chunked(exchange):
    head, _, body = exchange(get("/stream", CLOSE)).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body == b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"


def test_a_stream_ends_with_the_connection_in_http_1_0(exchange):
    head, _, body = exchange(get("/stream", version="1.0")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"one\ntwo\n"


def test_a_header_cannot_split_the_response(exchange):
    answer = exchange(get("/split", CLOSE))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nx-split" not in answer


def test_an_error_names_its_type_and_message(exchange):
    head, _, body = exchange(get("/raise", CLOSE)).partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert document["message"] == "the reason ✗"
    assert f"x-martlet-error: {document['type']}\r\n".lower() in (head + b"\r\n").decode().lower()


def test_lines_of_requests_at_once_are_told_apart(serving, exchange):
    threads = [
        threading.Thread(target=exchange, args=[get("/log", f"x-request-id: request-{number}", CLOSE)])
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = [json.loads(line[1:]) for line in serving[1].read_bytes().splitlines() if line[:1] == b"\x1e"]
    warned = {frame["id"] for frame in frames if (frame["s"], frame["m"]) == ("warning", "a warning")}
    assert {f"request-{number}" for number in range(4)} <= warned


def test_requests_under_way_are_finished_when_it_is_told_to_end(serving):
    running, _ = serving
    with socket.socket(socket.AF_UNIX) as unused, socket.socket(socket.AF_UNIX) as streaming:
        unused.connect(running.socket)
        streaming.connect(running.socket)
        streaming.sendall(get("/stream"))
        received = streaming.recv(65536)
        running.process.send_signal(signal.SIGTERM)
        while data := streaming.recv(65536):
            received += data
    assert received.endswith(b"4\r\ntwo\n\r\n0\r\n\r\n")
    assert running.process.wait(60) == 0


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("go", {"a.go": "package a\nfunc Other() {}\n"}),
        ("rust", {"handler.rs": "pub fn other() {}\n"}),
        ("cpp", {"handler.cpp": "int other() { return 0; }\n"}),
    ],
)
def test_a_handler_that_is_not_there_is_named(build, language, files):
    built = build(language, files)
    assert built.code != 0
    answer = json.loads(built.answer)
    assert answer["field"] == "config.handler"
    assert "andle" in answer["message"]


@pytest.mark.parametrize(
    ("language", "files", "place"),
    [
        ("go", {"handler.go": "package a\n\nfunc Handle() { wrong }\n"}, "handler.go:3:17"),
        ("rust", {"handler.rs": "\npub fn handle() { wrong }\n"}, "handler.rs:2:19"),
        ("cpp", {"handler.cpp": "\nvoid handle() { wrong; }\n"}, "handler.cpp:2:17"),
    ],
)
def test_errors_of_the_compiler_name_the_line(build, language, files, place):
    built = build(language, files)
    assert built.code != 0
    assert place in built.log


GO_HTTP = """package greeter

import "net/http"

func Greet(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/panic" {
		panic("the reason")
	}
	w.Write([]byte("hello " + r.URL.Path))
}
"""
GO_MAIN = """package main

import "martlet"

func main() {
	martlet.Run(func(request *martlet.Request) any { return "hello " + request.Path })
}
"""
RUST_MODULE = {
    "Cargo.toml": '[package]\nname = "a-greeter"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/lib.rs": "pub mod api;\n",
    "src/api.rs": 'pub fn greet(request: martlet::Request) -> String { format!("hello {}", request.path) }\n',
}
CPP_HANDLER = """#include <martlet.hpp>

namespace shop {
std::string greet(const martlet::Request& request) { return "hello " + request.path; }
}
"""
CMAKE = """cmake_minimum_required(VERSION 3.20)
project(greeter CXX)
find_package(martlet REQUIRED)
add_executable(function greeter.cpp)
target_link_libraries(function martlet::martlet)
"""
CPP_MAIN = CPP_HANDLER + "int main() { return martlet::serve(shop::greet); }\n"


@pytest.mark.parametrize(
    ("language", "files", "handler"),
    [
        pytest.param("go", {"api/http.go": GO_HTTP}, "api.Greet", id="net/http, in a folder"),
        pytest.param("go", {"main.go": GO_MAIN}, "handle", id="a main of its own"),
        pytest.param("rust", RUST_MODULE, "api::greet", id="a crate's module"),
        pytest.param("cpp", {"handler.cpp": CPP_HANDLER}, "shop::greet", id="a namespace"),
        pytest.param("cpp", {"greeter.cpp": CPP_MAIN, "CMakeLists.txt": CMAKE}, "handle", id="CMake"),
        pytest.param("cpp", {"function.cpp": CPP_MAIN, "Makefile": ""}, "handle", id="make"),
    ],
)
def test_a_handler_may_be_elsewhere(build, language, files, handler):
    built = build(language, files, handler)
    assert built.code == 0, built.log
    with shim.running([built.folder / "function"], built.folder) as running:
        assert _exchange(running.socket, get("/you", CLOSE)).endswith(b"\r\n\r\nhello /you")


def test_a_panic_of_a_net_http_handler_is_an_error(build):
    built = build("go", {"http.go": GO_HTTP}, "Greet")
    assert built.code == 0, built.log
    with shim.running([built.folder / "function"], built.folder) as running:
        answer = _exchange(running.socket, get("/panic", CLOSE))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"type": "panic", "message": "the reason"}
        assert _exchange(running.socket, get("/you", CLOSE)).endswith(b"hello /you")
