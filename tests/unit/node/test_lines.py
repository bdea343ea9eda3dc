import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.node.lines import MAX_AGE, MAX_LINE, Line, LineParser

NOW = 1_000_000.0


def parse(*pieces: bytes) -> list[Line]:
    parser = LineParser()
    lines = [line for piece in pieces for line in parser.feed(piece, NOW, "r1")]
    return [*lines, *parser.end(NOW, "r1")]


def frame(**members: object) -> bytes:
    document = {"t": NOW - 1, "id": "r2", "s": "info", "m": "hello"} | members
    return b"\x1e" + json.dumps(document).encode() + b"\n"


def plain(message: str) -> Line:
    return Line(NOW, "r1", "stdout", message)


def test_plain_lines_are_of_now_and_of_the_running_request() -> None:
    assert parse(b"one\ntwo\r\n\nthree") == [plain("one"), plain("two"), plain(""), plain("three")]


def test_a_frame_says_all_by_itself() -> None:
    assert parse(frame()) == [Line(NOW - 1, "r2", "info", "hello")]
    assert parse(frame(id=None, s="stderr", m="a\nb", t=1_000_000)) == [
        Line(NOW, None, "stderr", "a\nb"),
    ]


def test_a_frame_may_follow_an_unfinished_line() -> None:
    assert parse(b"half" + frame() + b"rest\n") == [
        plain("half"),
        Line(NOW - 1, "r2", "info", "hello"),
        plain("rest"),
    ]


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"t":"x","id":1,"s":2,"m":3}',
        b'{"t":true,"id":"r","s":"info"}',
        b'{"t":1,"id":"r","s":"info","m":["list"]}',
        b'{"t":1,"id":"\\ud800","s":"info","m":"x"}',
        b"[" * 4000,
        b'{"t":1,"id":"r","s":"info","m":"' + b"x" * 5000 + b'"}',
    ],
)
def test_what_is_no_frame_is_plain_text(forged: bytes) -> None:
    lines = parse(b"\x1e" + forged + b"\n", b"after\n")
    assert {(line.request_id, line.stream) for line in lines} == {("r1", "stdout")}
    assert "".join(line.message for line in lines) == forged.decode() + "after"


@pytest.mark.parametrize("claimed", [0, -1e308, NOW - MAX_AGE - 1, NOW + 2, 1e308, 10**18])
def test_a_frame_cannot_be_of_another_age(claimed: float) -> None:
    assert [line.time for line in parse(frame(t=claimed))] == [NOW]


@pytest.mark.parametrize("stream", ["", "Loud", "a b", "\x1b[31m", "x" * 65, "\n"])
def test_a_frame_cannot_invent_odd_streams(stream: str) -> None:
    assert [line.stream for line in parse(frame(s=stream))] == ["stdout"]


def test_a_request_id_has_a_length() -> None:
    assert [line.request_id for line in parse(frame(id="i" * 1000))] == ["i" * 128]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert parse(b"a\xff\0b\n") == [plain("a\ufffd\ufffdb")]
    assert parse(frame(m="a\0b")) == [Line(NOW - 1, "r2", "info", "a\ufffdb")]


@pytest.mark.parametrize("size", [MAX_LINE, MAX_LINE + 1, 10 * MAX_LINE + 5])
def test_an_endless_line_comes_in_pieces(size: int) -> None:
    for pieces in ([b"x" * size], [b"x" * 1000] * (size // 1000) + [b"x" * (size % 1000)]):
        lines = parse(*pieces)
        assert "".join(line.message for line in lines) == "x" * size
        assert max(len(line.message) for line in lines) <= MAX_LINE


def test_a_parser_remembers_little_of_an_endless_line() -> None:
    parser = LineParser()
    for start in (b"", b"\x1e"):
        for _ in range(100):
            list(parser.feed(start + b"x" * 1000, NOW, None))
            assert len(parser._rest) <= 2 * MAX_LINE + 2


@pytest.mark.parametrize("before", [0, 1, 3000, MAX_LINE, MAX_LINE + 1])
def test_a_frame_of_full_length_stays_whole_in_whatever_pieces_it_comes(before: int) -> None:
    longest = frame(m="y" * (MAX_LINE - len(frame(m=""))))
    assert len(longest) == MAX_LINE
    data = b"x" * before + longest
    for cut in range(0, len(data), 97):
        lines = parse(data[:cut], data[cut:])
        assert "".join(line.message for line in lines if line.stream == "stdout") == "x" * before
        assert [len(line.message) for line in lines if line.stream == "info"] == [longest.count(b"y")], cut


@pytest.mark.parametrize("text", ["\u00f6", "x\u00f6", "\u20ac", "\U0001f426", "x\U0001f426"])
def test_an_endless_line_is_cut_between_characters(text: str) -> None:
    lines = parse((text * 3 * MAX_LINE).encode())
    assert "".join(line.message for line in lines) == text * 3 * MAX_LINE
    assert max(len(line.message.encode()) for line in lines) <= MAX_LINE


long = st.lists(
    st.binary(max_size=20)
    | st.sampled_from([b"x" * MAX_LINE, b"\xc3\xb6" * MAX_LINE, b"\x1e" * 5000, frame()]),
    max_size=6,
).map(b"".join)


@given(st.binary(max_size=2000) | long, st.integers(0, 2**32))
def test_no_input_breaks_the_parser_and_pieces_do_not_matter(data: bytes, seed: int) -> None:
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(4))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert parse(*pieces) == parse(data)
