"""An instance's output: any bytes, in any pieces, become the same lines, and little is kept of what has no end."""

from martlet.node.lines import FRAME, MAX_LINE, REQUEST_ID_LENGTH, Line, LineParser
from tests.fuzz.wire import chance, cut_anywhere, every_byte

NOW = 1_000_000.0
SEEDS = [
    b"one\ntwo\r\n\nthree",
    b'half\x1e{"t":999999.5,"id":"r2","s":"info","m":"hello"}\nrest\n',
    b'\x1e{"t":1,"id":null,"s":"no stream","m":"a\\u0000b"}\n\x1e{}\n\xff\0\n',
    b"x" * (MAX_LINE + 5) + b'\x1e{"t":999999,"id":"r","s":"stderr","m":""}\n',
    "ö".encode() * MAX_LINE,
]


def read(reads: list[bytes]) -> list[Line]:
    """Returns the lines of these reads."""
    parser = LineParser()
    lines = [line for data in reads for line in parser.feed(data, NOW, "running")]
    return lines + parser.end(NOW, "running")


def check(data: bytes) -> None:
    """The target of a fuzzer. Raises AssertionError where cuts matter, or a line is not what a line may be."""
    lines = read([data])
    for cuts in (cut_anywhere(data, chance(data)), every_byte(data)):
        assert read(cuts) == lines
    for line in lines:
        assert len(line.message.encode()) <= 3 * MAX_LINE  # of a byte that is no text become three
        assert "\0" not in line.message
        assert NOW - 3600 <= line.time <= NOW + 1
        assert line.request_id is None or len(line.request_id) <= REQUEST_ID_LENGTH
        if FRAME not in data:
            assert (line.time, line.request_id, line.stream) == (NOW, "running", "stdout")
            assert "\n" not in line.message
    if FRAME not in data and b"\r" not in data and is_text(data):
        text = data.decode().replace("\n", "").replace("\0", "\ufffd")
        assert "".join(line.message for line in lines) == text


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
