"""The shim reads the same requests however they are cut, and writes responses that say where they end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.runtimes.python._martlet_python.http1 import (
    CHUNKED,
    BadRequest,
    Framing,
    Head,
    Parser,
    decode_path,
    header_block,
    whole,
)

STREAM = (
    b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\nx: 1\r\nX: 2\r\ncookie: a\r\ncookie: b\r\n\r\nhello"
    b"PUT /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nt: 1\r\n\r\n"
    b"GET /d HTTP/1.1\r\nconnection: Close\r\n\r\n"
)
EXPECTED = [
    ("GET", "/a?b=c", {"host": "h"}, b"", True),
    ("POST", "/b", {"content-length": "5", "x": "1, 2", "cookie": "a; b"}, b"hello", True),
    ("PUT", "/c", {"transfer-encoding": "Chunked"}, b"hello world", True),
    ("GET", "/d", {"connection": "Close"}, b"", False),
]
GET = Head(b"GET / HTTP/1.1\r\n")


def read(parts: list[bytes]) -> list[tuple[str, str, dict[str, str], bytes, bool]]:
    parser, remaining, found = Parser(1000), iter(parts), []
    while True:
        while (head := parser.head()) is None:
            part = next(remaining, None)
            if part is None:
                return found
            parser.feed(part)
        body = b""
        while (piece := parser.piece()) != b"":
            if piece is None:
                parser.feed(next(remaining))
            else:
                body += piece
        found.append((head.method, head.target, head.fields, body, head.keep_alive))


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_requests_are_the_same_however_they_are_cut(cuts: set[int]) -> None:
    assert read([STREAM[a:b] for a, b in pairwise([0, *sorted(cuts), len(STREAM)])]) == EXPECTED


@pytest.mark.parametrize(
    ("line", "length"),
    [
        (b"", 0),
        (b"content-length: 12\r\n", 12),
        (b"CONTENT-LENGTH:12\r\n", 12),
        (b"content-length: \t 12 \r\n", 12),
        (b"Transfer-Encoding: chunked\r\n", CHUNKED),
    ],
)
def test_the_length_of_the_body(line: bytes, length: int) -> None:
    assert Head(b"POST / HTTP/1.1\r\na: b\r\n" + line + b"c: d\r\n").length == length


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 1\r\ncontent-length: 1\r\n",
        b"content-length: 1\r\nContent-Length: 2\r\n",
        b"content-length: +1\r\n",
        b"content-length: 0x1\r\n",
        b"content-length: \r\n",
        b"content-length: 1234567890123456\r\n",
        b"content-length: \xb2\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 1\r\n",
    ],
)
def test_a_body_whose_end_is_in_doubt_is_refused(lines: bytes) -> None:
    with pytest.raises(BadRequest):
        Head(b"POST / HTTP/1.1\r\n" + lines)


def test_a_body_is_read_in_pieces_as_it_comes() -> None:
    parser = Parser(100)
    parser.feed(b"POST / HTTP/1.1\r\ncontent-length: 6\r\n\r\nabc")
    assert parser.head() is not None
    assert (parser.piece(), parser.piece(), parser.left) == (b"abc", None, 3)
    parser.feed(b"defGET / HTTP/1.1\r\n\r\n")
    assert (parser.piece(), parser.piece()) == (b"def", b"")
    assert parser.head() is not None


def test_what_follows_an_upgrade_is_handed_over() -> None:
    parser = Parser(100)
    parser.feed(b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n\x81\x00")
    assert parser.head() is not None
    assert (parser.buffered, parser.rest(), parser.buffered) == (2, b"\x81\x00", 0)


def test_paths_are_decoded_as_utf8_whether_they_were_quoted_or_not() -> None:
    assert decode_path("/caf%C3%A9") == "/caf\u00e9"
    assert decode_path("/caf\u00c3\u00a9") == "/caf\u00e9"
    assert decode_path("/%ff") == "/\ufffd"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_a_stream_is_framed_in_chunks_that_a_parser_reads_back(pieces: list[bytes]) -> None:
    framing = Framing(GET)
    framing.start(200, b"")
    wire = b"".join([*(framing.send(piece, more=True) for piece in pieces), framing.send(b"", more=True)])
    wire += framing.send(b"", more=False)
    head, _, body = wire.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    [(_, _, _, read_back, _)] = read([b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", body])
    assert read_back == b"".join(pieces)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
def test_a_whole_response_is_what_a_framing_says_of_it(method: str, version: str, status: int) -> None:
    head = Head(f"{method} / HTTP/{version}\r\n".encode())
    framing = Framing(head)
    framing.start(status, b"a: b\r\n")
    response = whole(head, status, b"a: b\r\n", b"body")
    assert response == framing.send(b"body", more=False)
    assert response.endswith(b"\r\n\r\nbody") == (method == "GET" and status in (200, 404))
    assert (b"content-length: 4" in response) == (status in (200, 404))
    assert (b"connection: close" in response) == (version == "1.0")


def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    framing = Framing(Head(b"GET / HTTP/1.0\r\n"))
    framing.start(200, b"")
    wire = framing.send(b"a", more=True) + framing.send(b"b", more=False)
    assert wire == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"
    assert not framing.keep_alive


@pytest.mark.parametrize(("sent", "more"), [(b"abcd", True), (b"ab", False)], ids=["longer", "shorter"])
def test_a_body_of_another_length_than_promised_is_an_error(sent: bytes, more: bool) -> None:
    framing = Framing(GET)
    framing.start(200, b"", 3)
    with pytest.raises(ValueError, match="content-length"):
        framing.send(sent, more)
    assert not framing.started


def test_headers_that_frame_the_body_are_left_out() -> None:
    block, length = header_block([(b"Content-Length", b"3"), (b"Connection", b"x"), (b"X-A", b"\xe9")])
    assert (block, length) == (b"x-a: \xe9\r\n", 3)


def test_a_head_that_repeats_but_for_its_id_is_still_read_in_full() -> None:
    parser = Parser(100)
    start = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n"
    for number in range(4):
        parser.feed(start + b"x-request-id: r%d\r\n\r\n%02d" % (number, number))
        head = parser.head()
        assert head is not None
        assert (head.method, head.target, head.length, head.keep_alive) == ("POST", "/a", 2, True)
        assert head.fields == {"host": "h", "content-length": "2", "x-request-id": f"r{number}"}
        assert parser.piece() == b"%02d" % number


def test_a_request_that_repeats_but_for_its_id_and_its_body_is_known_at_once() -> None:
    parser, start = Parser(100), b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n"
    assert parser.repeated(start + b"x-request-id: r0\r\n\r\n00") is None
    parser.feed(start + b"x-request-id: r0\r\n\r\n00")
    assert parser.head() is not None
    assert parser.piece() == b"00"
    request = parser.repeated(start + b"x-request-id: r1\r\n\r\n\r\n")
    assert request is not None
    head, body = request
    assert (head.method, head.target, head.length, head.keep_alive) == ("POST", "/a", 2, True)
    assert head.fields == {"host": "h", "content-length": "2", "x-request-id": "r1"}
    assert body == b"\r\n"


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"content-length: 2\r\n", b"x-request-id: b\r\n\r\n1"),
        (b"content-length: 2\r\n", b"x-request-id: b\r\n\r\n123"),
        (b"content-length: 2\r\n", b"x-request-id: b\r\n\r\n\r\n\r\n"),
        (b"content-length: 2\r\n", b"x-request-id: b\r\nconnection: close\r\n\r\n12"),
        (b"content-length: 2\r\n", b"x-request-ib: b\r\n\r\n12"),
        (b"content-length: 3\r\n", b"x-request-id: b\r\n\r\n12"),
        (b"content-length: 2\r\n", b"x-request-id: \r\n\r\n12"),
        (b"transfer-encoding: chunked\r\n", b"x-request-id: b\r\n\r\n"),
    ],
)
def test_what_is_not_all_of_a_request_like_the_last_goes_through_the_parser(
    framing: bytes, rest: bytes
) -> None:
    chunked = framing.startswith(b"transfer-encoding")
    start = b"POST /a HTTP/1.1\r\nhost: h\r\n"
    known = framing if chunked else b"content-length: 2\r\n"
    parser = Parser(100)
    parser.feed(start + known + b"x-request-id: a\r\n\r\n" + (b"0\r\n\r\n" if chunked else b"12"))
    assert parser.head() is not None
    while parser.piece():
        pass
    assert parser.repeated(start + framing + rest) is None


@pytest.mark.parametrize(
    "last",
    [
        b"connection: close\r\n",
        b"x-request-id: b\r\nconnection: close\r\n",
        b"content-length: 3\r\n",
        b"x-request-id: b\r\ntransfer-encoding: chunked\r\n",
        b"x-request-id b\r\n",
    ],
)
def test_what_else_follows_a_known_head_is_not_overlooked(last: bytes) -> None:
    def read(*heads: bytes) -> object:
        parser = Parser(100)
        try:
            for data in heads:
                parser.feed(data + b"\r\n")
                head = parser.head()
            return head and (head.length, head.keep_alive, head.fields)
        except BadRequest as error:
            return str(error)

    start = b"GET /a HTTP/1.1\r\nhost: h\r\n"
    assert read(start + b"x-request-id: a\r\n", start + last) == read(start + last)
