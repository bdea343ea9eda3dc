"""A program that forks a process for each request, ahead of it, and says how that has ended: a shell.

Those processes take turns in slots. What one reads and writes it has from here, by descriptors: its request comes over
a pipe, and its stdin, its stdout and the head of its response are files in memory, which cost it no system call to make
and none to send.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
from collections.abc import Iterator, Mapping

from _martlet_python.http1 import (  # type: ignore[import-not-found]
    Disconnected,
    Framing,
    Head,
    header_block,
    whole,
)

from . import assignments
from .child import pipe
from .complaints import Complaints
from .exchange import BadResponse
from .stdio import write

SAID, HEAD, STREAM, STDERR, FIRST_SLOT = 20, 21, 22, 23, 30
"""The numbers that descriptors have in the program (docs/design.md, "The program protocol")."""
COUNT = 3

_STREAMS = -1
_PIECE = 64 * 1024
_NEWS = re.compile(rb"(end|ended|stream) (\d{1,15}) (\d{1,3})")
_STATUS = re.compile(rb":status: ([2-5]\d\d)")
_PLAIN_TEXT = b"content-type: text/plain; charset=utf-8\r\n"


class Slot:
    """What is one process's at a time.

    Attributes:
        given: the descriptors that are the program's: its request, its stdin, its stdout.
        answered: its process has said that it ends, and the program not yet that it has ended.
    """

    def __init__(self) -> None:
        read, self._request = pipe()
        self._body, self._output = _file("body"), _file("output")
        self.given = read, self._body, self._output
        self.answered = False

    def let_go(self) -> None:
        """Closes the end that is the program's alone."""
        os.close(self.given[0])

    def ask(self, request: bytes, body: bytes) -> None:
        """Hands over a request. Raises BrokenPipeError."""
        os.ftruncate(self._output, 0)
        os.ftruncate(self._body, 0)
        write(self._body, body)
        write(self._request, request)

    def size(self) -> int:
        """Returns how many bytes were printed."""
        return os.fstat(self._output).st_size

    def output(self, size: int, at: int = 0) -> bytes:
        """Returns so many of them, or as many as there are."""
        return os.pread(self._output, size, at)

    def close(self) -> None:
        """Says that no more requests come."""
        os.close(self._request)


class Slots:
    """See the module; the `Ends` of such a program."""

    def __init__(self) -> None:
        self._said, said = pipe()
        self._stream, stream = pipe()
        os.set_blocking(self._stream, False)
        self._head = _file("head")
        self._complaints = Complaints()
        self._slots = [Slot() for _ in range(COUNT)]
        self._lent = said, stream, self._complaints.writer
        given = {SAID: said, HEAD: self._head, STREAM: stream, STDERR: self._complaints.writer}
        for number, slot in enumerate(self._slots):
            given |= enumerate(slot.given, FIRST_SLOT + 10 * number)
        self.given: Mapping[int, int] = given
        self._asked = 0
        self._slot = self._slots[0]
        self._heard = b""

    def let_go(self) -> None:
        """See `Ends`."""
        for descriptor in self._lent:
            os.close(descriptor)
        for slot in self._slots:
            slot.let_go()
        self._complaints.follow()

    def ask(self, head: Head, body: bytes) -> Iterator[tuple[bytes, bool]]:
        """See `Ends`."""
        self._slot = self._slots[self._asked % COUNT]
        self._asked += 1
        os.ftruncate(self._head, 0)
        self._slot.ask(assignments.request(self._asked, head, len(body)), body)
        while (code := self._news()) is None:
            self._listen()
        if code == _STREAMS:
            yield from self._streamed(head)
            return
        reason = self._complaints.settle()
        if code:
            yield _failure(head, code, reason), True
        else:
            yield from self._printed(head)

    def close(self) -> None:
        """See `Ends`."""
        for slot in self._slots:
            slot.close()

    def _listen(self) -> None:
        piece = os.read(self._said, _PIECE)
        if not piece:
            raise BadResponse("it has ended")
        self._heard += piece

    def _news(self) -> int | None:
        """Returns the exit status of the process that was asked, `_STREAMS` if it streams its response from now on, or
        None where nothing has been heard of it yet."""
        while b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            found = _NEWS.fullmatch(line)
            if found is None:
                raise BadResponse(f"{line[:64]!r} says nothing of a request")
            word, number, code = found[1], int(found[2]), int(found[3])
            if word == b"ended":
                slot = self._slots[number % COUNT]
                if slot.answered:
                    slot.answered = False
                    continue
                asked = slot is self._slot
            else:
                asked = number == self._asked
            if not asked:
                raise BadResponse("a process has ended, or answers, that was not asked")
            if word == b"stream":
                return _STREAMS
            self._slot.answered = word == b"end"
            return code
        return None

    def _printed(self, head: Head) -> Iterator[tuple[bytes, bool]]:
        body = self._slot.output(_PIECE)
        status, fields = self._said_of_it()
        status = status or (200 if body else 204)
        if len(body) < _PIECE:
            yield whole(head, status, fields, body), True
            return
        size, at = self._slot.size(), len(body)
        framing = Framing(head)
        framing.start(status, fields, size)
        while at < size:
            yield framing.send(body, more=True), False
            body = self._slot.output(min(size - at, _PIECE), at)
            if not body:
                raise BadResponse("what was printed is gone")
            at += len(body)
        yield framing.send(body, more=False), True

    def _streamed(self, head: Head) -> Iterator[tuple[bytes, bool]]:
        status, fields = self._said_of_it()
        framing = Framing(head)
        framing.start(status or 200, fields)
        yield framing.send(self._slot.output(_PIECE), more=True), False
        events = select.poll()
        events.register(self._said, select.POLLIN)
        events.register(self._stream, select.POLLIN)
        while (code := self._news()) is None:
            if any(ready == self._said for ready, _ in events.poll()):
                self._listen()
            yield framing.send(self._written(), more=True), False
        while piece := self._written():
            yield framing.send(piece, more=True), False
        self._complaints.settle()
        if code:
            yield b"", True
            raise Disconnected
        yield framing.send(b"", more=False), True

    def _written(self) -> bytes:
        try:
            return os.read(self._stream, _PIECE)
        except BlockingIOError:
            return b""

    def _said_of_it(self) -> tuple[int, bytes]:
        """Returns the status, or 0, and the headers that the process has said of its response."""
        status, fields = 0, []
        for line in os.pread(self._head, _PIECE, 0).split(b"\r\n")[:-1]:
            if found := _STATUS.fullmatch(line):
                status = int(found[1])
            else:
                name, _, value = line.partition(b":")
                fields.append((name, value.strip(b" ")))
        try:
            block, _ = header_block(fields)
        except ValueError as error:
            raise BadResponse(str(error)) from None
        if not any(name.lower() == b"content-type" for name, _ in fields):
            block += _PLAIN_TEXT
        return status, block


def _file(name: str) -> int:
    """Makes a file in memory, to whose end all is written."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
    return file


def _failure(head: Head, code: int, reason: str) -> bytes:
    kind = f"ExitStatus{code}"
    message = reason or f"the handler ended with exit status {code}"
    fields = b"content-type: application/json\r\nx-martlet-error: %b\r\n" % kind.encode()
    document: bytes = whole(head, 500, fields, json.dumps({"type": kind, "message": message}).encode())
    return document
