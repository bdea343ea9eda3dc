"""What holds for HTTP whoever sends it: clients that are hostile, and instances that are."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import chain, server, shim, upstream
from tests.fuzz.wire import run

fields = st.sampled_from(
    [
        b"host: h",
        b"Host: h",
        b"x: y",
        b"x-request-id: mine",
        b"x-martlet-scopes: admin",
        b"authorization: Bearer k",
        b"connection: close",
        b"connection: keep-alive",
        b"connection: upgrade",
        b"upgrade: websocket",
        b"upgrade: h2c",
        b"expect: 100-continue",
        b"content-length: 3",
        b"content-length: +3",
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip",
        b"keep-alive: 1",
        b"bad field",
        b" folded: x",
        b"x: \xff",
        b"x:\ty \t",
        b"x-long: " + b"v" * 2500,
    ]
)
bodies = st.binary(max_size=40) | st.sampled_from([b"GET /hidden HTTP/1.1\r\n\r\n", b"x" * 2001, b"\r\n"])


@st.composite
def framed(draw: st.DrawFn, start: bytes) -> bytes:
    """Draws a message that begins with a start line: most are framed as they should be."""
    lines = draw(st.lists(fields, max_size=4))
    body = draw(bodies)
    match draw(st.sampled_from(["none", "length", "length", "chunked", "trailed", "wrong"])):
        case "none":
            body = b""
        case "length":
            lines.append(b"content-length: %d" % len(body))
        case "wrong":
            lines.append(b"content-length: %d" % draw(st.integers(0, 50)))
        case framing:
            pieces = [body[:7], body[7:]]
            lines.append(b"transfer-encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n"
            body += (draw(fields) + b"\r\n" if framing == "trailed" else b"") + b"\r\n"
    return b"%b\r\n%b\r\n%b" % (start, b"".join(b"%b\r\n" % line for line in lines), body)


requests = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /a?b HTTP/1.1",
        b"PUT http://h/p HTTP/1.1",
        b"HEAD / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT h:1 HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET / HTTP/2.0",
        b"GET /\xff HTTP/1.1",
    ]
).flatmap(framed)
responses = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 500 No",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 020 No",
        b"HTTP/1.1 999 No",
    ]
).flatmap(framed)


@st.composite
def in_reads(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> list[bytes]:
    """Draws messages, some of them sent more than once, in reads that end where they do, or anywhere."""
    sent: list[bytes] = []
    for message in draw(st.lists(messages, min_size=1, max_size=3)):
        sent += [message] * draw(st.integers(1, 3))
    if draw(st.booleans()):
        return sent
    data = b"".join(sent)
    places = sorted(draw(st.sets(st.integers(1, len(data)), max_size=5)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(in_reads(requests))
def test_what_a_client_asks_does_not_depend_on_how_its_bytes_are_cut(reads: list[bytes]) -> None:
    run(server.check_reads(reads))


@given(in_reads(requests))
def test_the_function_gets_what_the_client_sent_and_nothing_else(reads: list[bytes]) -> None:
    run(chain.check_reads(reads))


@given(in_reads(requests))
def test_the_shim_reads_the_same_however_its_bytes_are_cut(reads: list[bytes]) -> None:
    shim.check_reads(reads)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(upstream.METHODS)), in_reads(responses)), min_size=1, max_size=4
    )
)
def test_a_client_gets_one_valid_response_or_the_end_of_its_connection(
    turns: list[tuple[int, list[bytes]]],
) -> None:
    letters = bytes(letter for letter, _ in turns)
    run(upstream.check_responses(letters, [reads for _, reads in turns]))
