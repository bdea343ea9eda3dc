"""Connections in memory: what the protocols of `martlet.http` see of a socket, at the speed that fuzzing needs."""

import asyncio
import atexit
import random
import zlib
from collections import deque
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

CUT = b"\x1c"
"""Separates the reads of an input, so that a fuzzer decides where they begin and end."""

_RUNNER = asyncio.Runner()  # one for all inputs: a loop of its own would cost each more than its check does
atexit.register(_RUNNER.close)


def run(check: Coroutine[Any, Any, None]) -> None:
    """Runs the check of one input."""
    _RUNNER.run(check)


class Transport(asyncio.Transport):
    """One end of a connection; keeps what its protocol writes, and hands it what the other end sends.

    Attributes:
        sent: all that was written.
        ended: the protocol has ended its side.
        aborted: the protocol has cut the connection.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.sent = bytearray()
        self.ended = self.aborted = False
        self._protocol = protocol
        self._closing = self._paused = False
        self._reads: deque[bytes] = deque()
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """The other end has sent ``data``; it arrives unless reading is paused, or nobody reads any more."""
        self._reads.append(data)
        self._deliver()

    def receive_eof(self) -> None:
        """The other end sends nothing more."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def _deliver(self) -> None:
        while self._reads and not self._paused and not self._closing:
            if data := self._reads.popleft():
                self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        if not self._closing:
            assert not self.ended, "written after its end"
            self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        asyncio.get_running_loop().call_soon(self._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = not self._closing
        self.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is room for everything."""


async def settle(*transports: Transport) -> None:
    """Waits until nothing more happens on these connections by itself."""
    quiet, before = 0, None
    while quiet < 4:
        await asyncio.sleep(0)
        now = [(len(transport.sent), transport.is_closing()) for transport in transports]
        quiet, before = (quiet + 1, before) if now == before else (0, now)


def chance(data: bytes) -> random.Random:
    """Returns random numbers that are always the same for the same input."""
    return random.Random(zlib.crc32(data))


def cut_anywhere(data: bytes, chance: random.Random) -> list[bytes]:
    """Cuts into up to eight pieces, which may be empty."""
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(8)))
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


def every_byte(data: bytes) -> list[bytes]:
    """Cuts into single bytes; what is longer than 2,000 into two thousand pieces."""
    step = len(data) // 2000 + 1
    return [data[at : at + step] for at in range(0, len(data), step)]
