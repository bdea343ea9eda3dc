"""Whatever an instance writes in place of a response: a client gets one whole answer to its request, or none, and what
belongs to others stays theirs. What a function tells its own clients is its own business."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.security.conftest import bounded_memory, undisturbed
from tests.security.wire import Cut, Wire, post
from tests.system.conftest import until

OK = "HTTP/1.1 200 OK\r\n"
EVIL = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
CHUNKED = OK + "transfer-encoding: chunked\r\n\r\n"

ANSWERS = [
    (["garbage\r\n\r\nevil"], "wait"),
    (["\0\0\0\0evil"], "wait"),
    (["HTTP/2 200\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 000 OK\r\ncontent-length: 4\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 099 OK\r\ncontent-length: 4\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 2OO OK\r\ncontent-length: 4\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 101 Go\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + EVIL], "wait"),
    ([OK + "content-length: 4\r\ncontent-length: 5\r\n\r\nevil!"], "wait"),
    ([OK + "content-length: 4, 4\r\n\r\nevil"], "wait"),
    ([OK + "content-length: -4\r\n\r\nevil"], "wait"),
    ([OK + "content-length: 99999999999999999999\r\n\r\nevil"], "wait"),
    ([OK + "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"], "wait"),
    ([OK + "transfer-encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"], "wait"),
    ([OK + "transfer-encoding: chunked, identity\r\n\r\n4\r\nevil\r\n0\r\n\r\n"], "close"),
    ([OK + "transfer-encoding : chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"], "wait"),
    ([OK + "x: a\r\n folded: evil\r\ncontent-length: 0\r\n\r\n"], "wait"),
    ([OK + "x: a\nset-cookie: evil\r\ncontent-length: 0\r\n\r\n"], "wait"),
    ([OK + "x: a\rset-cookie: evil\r\ncontent-length: 0\r\n\r\n"], "wait"),
    ([OK + "x: a\0evil\r\ncontent-length: 0\r\n\r\n"], "wait"),
    ([OK + "bad name: evil\r\ncontent-length: 0\r\n\r\n"], "wait"),
    ([CHUNKED + "fffffffffffffffff\r\nevil"], "wait"),
    ([CHUNKED + "-4\r\nevil\r\n0\r\n\r\n"], "wait"),
    ([CHUNKED + "4\nevil\n0\n\n"], "wait"),
    ([CHUNKED + "3\r\nevil\r\n0\r\n\r\n"], "wait"),
    ([OK + "content-length: 2\r\n\r\nok" + EVIL], "wait"),
    (["HTTP/1.1 204 No\r\ncontent-length: 4\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 304 No\r\n\r\n" + EVIL], "wait"),
    ([OK + "content-length: 10\r\n\r\nshort"], "close"),
    ([OK + "content-length: 10\r\n\r\nshort"], "leave"),
    ([OK + "content-length: 10\r\n\r\nshort"], "wait"),
    ([OK + "content-length: 5\r\n\r\nlonger" + EVIL], "wait"),
    ([CHUNKED + "4\r\nrest"], "close"),
    ([CHUNKED + "4\r\nrest\r\n"], "leave"),
    ([CHUNKED + "0\r\ncontent-length: 4\r\nx: y\r\n\r\n" + EVIL], "wait"),
    ([CHUNKED + "0\r\nset-cookie: evil\r\nx-request-id: evil\r\nx: y\r\n\r\n"], "wait"),
    (["HTTP/1.1 100 Continue\r\n\r\n" * 3, EVIL.replace("evil", "good") + EVIL], "wait"),
    (["HTTP/1.1 103 Hints\r\nlink: evil\r\n\r\n", OK + "content-length: 0\r\n\r\n" + EVIL], "wait"),
    (["HTTP/1.1 500 X\r\nx-martlet-error: E\r\ncontent-length: 4\r\n\r\nevil"], "wait"),
    (["HTTP/1.1 500 X\r\nx-martlet-error: E\r\n\r\n" + "[" * 100_000], "wait"),
    ([OK + "content-length: 0\r\nx-request-id: evil\r\nx-faas-revision: evil\r\n\r\n"], "wait"),
    ([""], "close"),
    ([""], "leave"),
]


@pytest.fixture(scope="module")
def answering(hostile, rung):
    return hostile("answering", timeout=4 if rung == "microvm" else 1)  # an emulated processor answers slowly


def request(attempt, *arguments):
    return post("/invoke/answering", json.dumps({"attempt": attempt, "arguments": arguments}).encode())


def in_time(send):
    """Returns a response that was not too late: a busy machine may not have one in the function's second."""
    return until(lambda: (response := send()).status_code != 504 and response, why="it is always too late")


def ask(wire, *attempt):
    """Returns the answer to a request, or None where the connection was cut under it."""
    wire.send(request(*attempt))
    try:
        return wire.response()
    except Cut:
        return None


def test_each_request_gets_one_answer_that_is_its_own(answering, platform, rung):
    with ThreadPoolExecutor(2 if rung == "microvm" else 8) as pool:  # nearly each takes a new instance
        list(pool.map(lambda attempt: answer_and_look(platform.port, *attempt), ANSWERS))
    until(lambda: answering.send("echo", "mine").status_code == 200, why="it does not answer again")


def answer_and_look(port, pieces, then):
    """Has the function answer so, and looks at what its client gets, then and afterwards."""
    with Wire(port) as shared, Wire(port) as other:
        first = ask(shared, "answer", pieces, then)
        if first is not None:
            status, headers, body = first
            assert status in (200, 204, 304, 500, 502, 504), (pieces, first)
            assert "evil" not in f"{headers} {body!r}", (pieces, first)
        # Those who come after: on the very same connection where it is left open, as a proxy in front would, and not.
        for wire in [shared, other] if first and first[1].get("connection") != "close" else [other]:
            wire.send(post("/invoke/neighbour", b"after", b"x-request-id: my-own"))
            status, headers, body = wire.response()
            assert (status, headers["x-request-id"], body) == (200, "my-own", b"retfa"), (pieces, first)


def test_an_error_nested_too_deeply_to_be_written_down_is_an_error(answering, platform):
    nested = "[" * 1020 + "]" * 1020
    body = f'{{"type": {nested}, "message": {nested}}}'
    head = f"HTTP/1.1 500 X\r\nx-martlet-error: E\r\ncontent-length: {len(body)}\r\n\r\n"
    response = in_time(lambda: answering.send("answer", [head + body], "wait"))
    assert (response.status_code, response.json()["code"]) == (500, "function_error")


def test_an_endless_answer_costs_the_platform_no_memory(answering, platform):
    endless = [
        ("HTTP/1.1 200 ", "a" * 65536),
        (OK + "x: ", "a" * 65536),
        (OK, "x: y\r\n" * 10_000),
        ("", "HTTP/1.1 100 Continue\r\n\r\n" * 2000),
        ("", "HTTP/1.1 103 Hints\r\nlink: <a>\r\n\r\n" * 2000),
        (CHUNKED + "0\r\nx: ", "a" * 65536),
        (CHUNKED + "0\r\n", "x: y\r\n" * 10_000),
        (CHUNKED + "1;", "a" * 65536),
        ("HTTP/1.1 500 X\r\nx-martlet-error: E\r\n\r\n", "a" * 65536),
        ("HTTP/1.1 500 X\r\nx-martlet-error: E\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\na\r\n" * 10_000),
    ]
    with undisturbed(platform), bounded_memory(platform):
        for start, piece in endless:
            with Wire(platform.port) as wire:
                first = ask(wire, "flood", start, piece, 3000)
            assert first is None or first[0] in (500, 502, 504), start


def test_an_endless_body_goes_no_faster_than_its_client_reads(answering, platform):
    with bounded_memory(platform), Wire(platform.port) as wire:
        wire.send(request("flood", OK + "\r\n", "a" * 65536, 2000))
        assert wire.socket.recv(4096).startswith(b"HTTP/1.1 200")
        with undisturbed(platform):
            assert wire.rest().count(b"a") > 65536


@pytest.mark.parametrize(
    "value", ["a\r\nset-cookie: evil", "a\nset-cookie: evil", "a\r\n\r\nevil", "a\0b", "a\rb"]
)
def test_a_header_cannot_be_made_into_two(answering, value):
    response = in_time(lambda: answering.send("header", "x-value", value))
    assert response.status_code == 500
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("name", ["a b", "a:b", "a\r\nb", "", "content-length\0"])
def test_a_header_needs_a_name(answering, name):
    assert in_time(lambda: answering.send("header", name, "value")).status_code == 500


@pytest.mark.parametrize(
    "name", ["x-request-id", "x-faas-revision", "x-martlet-error", "connection", "keep-alive"]
)
def test_headers_of_the_platform_are_not_the_functions_to_set(answering, name):
    response = in_time(lambda: answering.send("header", name, "evil"))
    assert response.headers.get(name) != "evil"
