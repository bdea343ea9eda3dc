"""The frames of WebSocket, as RFC 6455 shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.runtimes.python._martlet_python.frames import (
    Close,
    Decoder,
    FrameError,
    Message,
    Opcode,
    accept_key,
    encode,
    encode_close,
    parse_close,
)


def masked(opcode: int, payload: bytes, mask: bytes, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2)
    else:
        head += b"\xff" + size.to_bytes(8)
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def test_the_examples_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert encode(Opcode.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    decoder = Decoder(100)
    decoder.feed(bytes.fromhex("818537fa213d7f9f4d5158"))
    assert decoder.next() == Message(Opcode.TEXT, b"Hello")


@given(st.binary(max_size=70_000), st.binary(min_size=4, max_size=4), st.integers(1, 5000))
def test_a_message_is_the_same_however_it_is_cut(payload: bytes, mask: bytes, step: int) -> None:
    decoder, wire = Decoder(100_000), masked(Opcode.BINARY, payload, mask)
    found = []
    for start in range(0, len(wire), step):
        decoder.feed(wire[start : start + step])
        while (message := decoder.next()) is not None:
            found.append(message)
    assert found == [Message(Opcode.BINARY, payload)]


def test_a_message_that_announces_too_much_is_refused_before_it_is_received() -> None:
    decoder = Decoder(100)
    decoder.feed(b"\x82\xff" + (1 << 40).to_bytes(8))
    with pytest.raises(FrameError) as refused:
        decoder.next()
    assert refused.value.code == Close.TOO_LARGE


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4999, "b\u00e9"), (1011, "\u20ac" * 100)])
def test_a_close_says_why(code: int, reason: str) -> None:
    frame = encode_close(code, reason)
    assert len(frame) <= 127
    read_code, read_reason = parse_close(frame[2:])
    assert read_code == code
    assert reason.startswith(read_reason)


def test_a_close_may_say_nothing() -> None:
    assert parse_close(b"") == (Close.NO_STATUS, "")
