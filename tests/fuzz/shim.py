"""The shim's HTTP: read the same however it is cut, and as h11 reads it; what it writes h11 can read."""

from martlet.runtimes.python._martlet_python.http1 import BadRequest, Framing, Head, Parser, whole
from tests.fuzz.oracle import Request, read_requests, read_responses
from tests.fuzz.wire import CUT, chance, cut_anywhere, every_byte

MAX_BODY = 2000
REPEATED = b"POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\nx-request-id: r%d\r\n\r\n%d"
SEEDS = [
    b"".join(REPEATED % (n, n) for n in range(3)) + (REPEATED % (4, 44)).replace(b": 1", b": 2"),
    b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /b HTTP/1.1\r\nhost: h\r\nContent-Length: 5\r\nx: 1\r\nX: 2\r\n\r\nhello"
    + CUT
    + b"HEAD / HTTP/1.0\r\n\r\n",
    b"PUT /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nt: 1\r\n\r\n",
    b"GET * HTTP/1.1\r\nhost: h\r\nconnection: Close\r\ncookie: a\r\ncookie: b\r\n\r\n",
]


Told = tuple[str, str, int, int, bool, dict[str, str], bytes]
"""All that a head says, and the body."""


def read(reads: list[bytes]) -> tuple[list[tuple[Head, bytes]], list[int], int | None]:
    """Reads what comes on one connection.

    Returns:
        The requests with their bodies; where each ends, if all came in one read; and the status of a refusal, None if
        there was none.
    """
    parser, found, ends = Parser(MAX_BODY), [], []
    remaining = iter(reads)
    try:
        while True:
            while (head := parser.head()) is None:
                data = next(remaining)
                repeated = None if parser.buffered else parser.repeated(data)
                if repeated is None:
                    parser.feed(data)
                else:
                    found.append(repeated)
                    ends.append(len(reads[0]))
            body = b""
            while (piece := parser.piece()) != b"":
                if piece is None:
                    parser.feed(next(remaining))
                else:
                    body += piece
            assert not parser.left
            found.append((head, body))
            ends.append(len(reads[0]) - parser.buffered)
    except StopIteration:
        return found, ends, None
    except BadRequest as error:
        assert error.status in (400, 413, 431)
        return found, ends, error.status


def told(found: list[tuple[Head, bytes]]) -> list[Told]:
    """Returns a reading in a form that can be compared."""
    return [
        (head.method, head.target, head.minor, head.length, head.keep_alive, head.fields, body)
        for head, body in found
    ]


def check_reads(reads: list[bytes]) -> None:
    """Raises AssertionError where cuts matter, or what came before, or where h11 reads something else."""
    data = b"".join(reads)
    found, ends, refused = read([data])
    for cuts in (reads, cut_anywhere(data, chance(data)), every_byte(data)):
        other, _, other_refused = read(cuts)
        assert (told(other), other_refused) == (told(found), refused), f"{cuts} is not {data!r}"
    for request, start, end in zip(found, [0, *ends], ends, strict=False):
        alone, _, _ = read([data[start:end]])
        assert told(alone) == told([request]), "a request is read differently on a connection of its own"
    requests = [Request(head.method.encode(), head.target.encode("latin-1"), body) for head, body in found]
    for ours, theirs in zip(requests, read_requests(data), strict=False):
        assert ours == theirs
    for head, body in found:
        check_answers(head, body)


def check_answers(head: Head, body: bytes) -> None:
    """Raises AssertionError where h11 does not read the response to a request as it was meant."""
    method = head.method.encode()
    for status in (200, 204, 304, 500):
        bodiless = head.method == "HEAD" or status in (204, 304)
        framing = Framing(head)
        framing.start(status, b"x: y\r\n")
        pieces = cut_anywhere(body, chance(body))
        streamed = b"".join(framing.send(piece, more=True) for piece in pieces) + framing.send(
            b"", more=False
        )
        for wire, ended in (
            (whole(head, status, b"x: y\r\n", body), False),
            (streamed, not framing.keep_alive),
        ):
            [response] = read_responses(wire, [method], ended)
            assert response.whole
            assert (response.status, response.body) == (status, b"" if bodiless else body)
            assert response.header(b"x") == b"y"


def check(data: bytes) -> None:
    """The target of a fuzzer."""
    check_reads(data.split(CUT))
