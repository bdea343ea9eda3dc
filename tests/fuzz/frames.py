"""The shim's WebSocket frames: read the same however they are cut, and as the websockets package reads them."""

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from martlet.runtimes.python._martlet_python.frames import (
    Close,
    Decoder,
    FrameError,
    Message,
    Opcode,
    encode,
    encode_close,
    parse_close,
)
from tests.fuzz.wire import chance, cut_anywhere, every_byte

MAX_SIZE = 300


def masked(opcode: int, payload: bytes, final: bool = True, mask: bytes = b"mask") -> bytes:
    """Returns a frame as a client sends it."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 * final | opcode]) + length + mask + body


SEEDS = [
    masked(Opcode.TEXT, "größe".encode()) + masked(Opcode.BINARY, bytes(200)),
    masked(Opcode.TEXT, b"a", False) + masked(Opcode.PING, b"p") + masked(Opcode.CONTINUATION, b"b"),
    masked(Opcode.CLOSE, b"\x03\xe8bye"),
    masked(Opcode.CLOSE, b"") + masked(Opcode.PONG, b""),
    masked(Opcode.BINARY, bytes(301)),
]


def read(reads: list[bytes]) -> tuple[list[Message], bool]:
    """Returns the messages of these reads up to a close, and whether they end in a breach of the protocol."""
    decoder, found = Decoder(MAX_SIZE), []
    try:
        for data in reads:
            decoder.feed(data)
            while (message := decoder.next()) is not None:
                found.append(message)
                if message.opcode is Opcode.CLOSE:
                    parse_close(message.payload)
                    return found, False
    except FrameError as error:
        assert error.code in (Close.PROTOCOL_ERROR, Close.NOT_UTF8, Close.TOO_LARGE)
        return found, True
    return found, False


def read_by_websockets(data: bytes) -> tuple[list[Message], bool]:
    """Returns the same as `read`, as the websockets package sees it."""
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_SIZE)
    protocol.receive_data(data)
    found: list[Message] = []
    fragments: list[Frame] = []
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode >= Opcode.CLOSE:
            found.append(Message(Opcode(frame.opcode), bytes(frame.data)))
            continue
        fragments.append(frame)
        if frame.fin:
            payload = b"".join(bytes(part.data) for part in fragments)
            found.append(Message(Opcode(fragments[0].opcode), payload))
            fragments = []
    return found, isinstance(protocol.parser_exc, ProtocolError | PayloadTooBig | UnicodeDecodeError)


def check(data: bytes) -> None:
    """The target of a fuzzer. Raises AssertionError where cuts matter, or the other reading differs."""
    found, broken = read([data])
    for cuts in (cut_anywhere(data, chance(data)), every_byte(data)):
        assert read(cuts) == (found, broken), f"{cuts} is not {data!r}"
    theirs, theirs_broken = read_by_websockets(data)
    if broken:  # which we may say earlier: when a frame begins
        assert found[: len(theirs)] == theirs[: len(found)]
        return
    if found and found[-1].opcode is Opcode.CLOSE:
        assert theirs in (
            found,
            found[:-1],
        )  # that package takes no close within a message; RFC 6455 (5.4) does
    else:
        assert (theirs, theirs_broken) == (found, False)
    for message in found:
        if message.opcode is Opcode.CLOSE:
            code, reason = parse_close(message.payload)
            if code != Close.NO_STATUS:
                assert encode_close(code, reason)[2:] == message.payload
        else:
            assert read_by_server(encode(message.opcode, message.payload)) == message


def read_by_server(frame: bytes) -> Message:
    """Reads a frame of the server's as a client would: by masking it with zeros."""
    size = frame[1]
    at = 2 if size < 126 else 4 if size == 126 else 10
    decoder = Decoder(MAX_SIZE)
    decoder.feed(frame[:1] + bytes([size | 0x80]) + frame[2:at] + bytes(4) + frame[at:])
    message = decoder.next()
    assert message is not None
    return message
