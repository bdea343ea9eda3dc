"""The frames of the WebSocket protocol (RFC 6455), the server's side, as functions of bytes."""

from __future__ import annotations

import base64
import hashlib
from enum import IntEnum
from typing import NamedTuple

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_CONTROL = 125


class Opcode(IntEnum):
    """What a frame carries."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Close(IntEnum):
    """Why a connection is closed (section 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    ABNORMAL = 1006
    NOT_UTF8 = 1007
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012


class FrameError(Exception):
    """The peer broke the protocol; ``code`` is what it is told."""

    def __init__(self, message: str, code: Close = Close.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: Opcode
    payload: bytes


def accept_key(key: str) -> bytes:
    """Returns the value of ``sec-websocket-accept`` that answers a client's key."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest())


def encode(opcode: Opcode, payload: bytes) -> bytes:
    """Returns a message as one frame, unmasked, as a server sends it."""
    size = len(payload)
    if size <= _MAX_CONTROL:
        return b"%c%c%b" % (0x80 | opcode, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8), payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Returns a close frame; a reason that is too long is cut."""
    shortened = reason.encode()[: _MAX_CONTROL - 2].decode("utf-8", "ignore")
    return encode(Opcode.CLOSE, code.to_bytes(2) + shortened.encode())


def parse_close(payload: bytes) -> tuple[int, str]:
    """Reads the code and reason of a close frame.

    Raises:
        FrameError: they are not what a peer may send.
    """
    if not payload:
        return Close.NO_STATUS, ""
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        raise FrameError("a close frame has no code that may be sent")
    return code, text(payload[2:])


def text(payload: bytes) -> str:
    """Decodes the payload of a text message.

    Raises:
        FrameError: it is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError("text must be UTF-8", Close.NOT_UTF8) from None


class Decoder:
    """Reads messages from the bytes of one connection, however they are cut.

    Args:
        max_size: bytes a message may have.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        self._opcode: Opcode | None = None
        self._fragments: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Adds bytes that were received."""
        self._buffer += data

    def next(self) -> Message | None:
        """Returns the next whole message or control frame; None when more bytes are needed.

        Raises:
            FrameError: the peer broke the protocol, or a message is too large.
        """
        while (frame := self._frame()) is not None:
            final, opcode, payload = frame
            if opcode >= Opcode.CLOSE:
                return Message(opcode, payload)
            if (opcode is Opcode.CONTINUATION) != (self._opcode is not None):
                raise FrameError(
                    "a message was begun before the one before it ended, or continued and never begun"
                )
            if opcode is not Opcode.CONTINUATION:
                self._opcode = opcode
            self._fragments.append(payload)
            self._size += len(payload)
            if final:
                assert self._opcode is not None
                message = Message(self._opcode, b"".join(self._fragments))
                self._opcode, self._fragments, self._size = None, [], 0
                return message
        return None

    def _frame(self) -> tuple[bool, Opcode, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        final, opcode, size = self._check(buffer[0], buffer[1])
        at = 2
        if size > _MAX_CONTROL:
            at = 4 if size == 126 else 10
            if len(buffer) < at:
                return None
            size = int.from_bytes(buffer[2:at])
        if opcode < Opcode.CLOSE and self._size + size > self._max_size:
            raise FrameError(f"a message may have {self._max_size} bytes", Close.TOO_LARGE)
        end = at + 4 + size
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[at + 4 : end]), bytes(buffer[at : at + 4]))
        del buffer[:end]
        return final, opcode, payload

    def _check(self, first: int, second: int) -> tuple[bool, Opcode, int]:
        final, size = bool(first & 0x80), second & 0x7F
        if first & 0x70:
            raise FrameError("a frame uses an extension that was not agreed on")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise FrameError(f"there is no opcode {first & 0x0F}") from None
        if not second & 0x80:
            raise FrameError("a client must mask its frames")
        if opcode >= Opcode.CLOSE and (size > _MAX_CONTROL or not final):
            raise FrameError("a control frame must be short and whole")
        return final, opcode, size


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
