"""Connections over ports, between two relays that only have a stream for each port."""

import os
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from martlet.microvm.links import Interests, Link, PortGone

SECONDS = 20.0
MUCH = 64 * 1024 * 1024


class Service:
    """Where connections go in the end: it hands out the other ends of those that were made."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind("")
        self._listener.listen()
        self._listener.settimeout(SECONDS)
        self._accepted: list[socket.socket] = []

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._listener.getsockname())
        except OSError:
            connection.close()
            raise
        return connection

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(SECONDS)
        self._accepted.append(connection)
        return connection

    def refuse(self) -> None:
        self._listener.close()

    def close(self) -> None:
        self._listener.close()
        for connection in self._accepted:
            connection.close()


class Wall:
    """Two sides with one port between them, each served by a thread of its own."""

    def __init__(self) -> None:
        self.service = Service()
        outside, inside = socket.socketpair()
        self._ports = (outside, inside)
        interests = Interests(), Interests()
        self.outer = Link(outside.fileno(), interests[0])
        self.inner = Link(inside.fileno(), interests[1], self.service.connect)
        self._stop, stopper = os.pipe()
        self._stopper = stopper
        self._newcomers: list[tuple[socket.socket, bytes]] = []
        self._clients: list[socket.socket] = []
        self._wake, self._waker = os.pipe()
        self._threads = [
            threading.Thread(target=self._run, args=(link, each), daemon=True)
            for link, each in zip((self.outer, self.inner), interests, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def carry(self, said: bytes = b"") -> socket.socket:
        """Returns the client's end of a connection that the outer side has taken on, with what was read from it."""
        ours, theirs = socket.socketpair()
        ours.settimeout(SECONDS)
        self._clients.append(ours)
        self._newcomers.append((theirs, said))
        os.write(self._waker, b"x")
        return ours

    def close(self) -> None:
        os.write(self._stopper, b"xx")
        for thread in self._threads:
            thread.join(SECONDS)
        self.service.close()
        for link in (self.outer, self.inner):
            link.close()
        for connection in (*self._clients, *self._ports):
            connection.close()
        for descriptor in (self._stop, self._stopper, self._wake, self._waker):
            os.close(descriptor)

    def _run(self, link: Link, interests: Interests) -> None:
        interests.watch(self._stop, select.EPOLLIN)
        while True:
            if link is self.outer:
                interests.watch(self._wake, select.EPOLLIN if link.free else 0)
            for descriptor, event in interests.events.poll():
                if descriptor == self._stop:
                    return
                if descriptor == self._wake:
                    os.read(self._wake, 1)
                    link.carry(*self._newcomers.pop(0))
                elif descriptor in link.descriptors:
                    link.serve(descriptor, event)


@pytest.fixture
def wall() -> Iterator[Wall]:
    wall = Wall()
    yield wall
    wall.close()


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def write_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"y" * 65536)


def test_bytes_go_both_ways_and_ends_are_heard_of(wall: Wall):
    client = wall.carry()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    server = wall.service.accept()

    assert read_all(server) == b"question"
    server.sendall(b"answer")
    server.close()

    assert read_all(client) == b"answer"


def test_what_was_read_before_goes_first(wall: Wall):
    client = wall.carry(b"first ")
    client.sendall(b"second")
    client.shutdown(socket.SHUT_WR)

    assert read_all(wall.service.accept()) == b"first second"


def test_what_was_read_before_may_be_much(wall: Wall):
    said = os.urandom(300_000)
    client = wall.carry(said)
    client.shutdown(socket.SHUT_WR)

    assert read_all(wall.service.accept()) == said


def test_a_port_carries_one_connection_after_the_other(wall: Wall):
    for number in range(20):
        client = wall.carry(b"%d" % number)
        server = wall.service.accept()
        assert server.recv(10) == b"%d" % number
        server.sendall(b"seen")
        if number % 2:
            server.close()
            assert read_all(client) == b"seen"
            client.close()
        else:
            assert client.recv(4) == b"seen"
            client.close()
            assert read_all(server) == b""
            server.close()


def test_a_client_that_is_gone_is_heard_of_by_whoever_writes_to_it(wall: Wall):
    client = wall.carry(b"more")
    server = wall.service.accept()
    server.sendall(b"x")
    assert client.recv(1) == b"x"

    client.close()

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        write_for_ever(server)
    following = wall.carry(b"next")
    assert wall.service.accept().recv(4) == b"next"
    following.close()


def test_nothing_of_one_connection_comes_out_of_the_next(wall: Wall):
    for number in range(50):
        client = wall.carry(b"%02d" % number)
        server = wall.service.accept()
        server.sendall(b"%02d" % number * 40_000)
        assert client.recv(2) == b"%02d" % number
        client.close()
        server.close()


def test_a_reader_that_takes_nothing_stops_its_writer_and_then_gets_all(wall: Wall):
    client = wall.carry(b"go")
    server = wall.service.accept()
    server.setblocking(False)
    sent = 0
    while select.select([], [server], [], 0.5)[1] and sent < MUCH:
        sent += server.send(b"z" * 65536)
    server.setblocking(True)
    server.shutdown(socket.SHUT_WR)

    assert sent < MUCH
    assert len(read_all(client)) == sent


def test_a_client_is_told_where_nobody_takes_its_connection(wall: Wall):
    wall.service.refuse()

    assert read_all(wall.carry(b"hello")) == b""


def test_a_port_whose_other_end_is_closed_is_gone():
    ours, theirs = socket.socketpair()
    link = Link(ours.fileno(), Interests())
    theirs.close()

    with ours, pytest.raises(PortGone):
        link.serve(ours.fileno(), select.EPOLLIN | select.EPOLLHUP)


def test_whoever_begins_a_frame_that_is_too_long_is_not_listened_to():
    ours, theirs = socket.socketpair()
    link = Link(ours.fileno(), Interests())
    theirs.sendall(struct.pack(">I", 64 * 1024 + 1))

    with ours, theirs, pytest.raises(PortGone):
        link.serve(ours.fileno(), select.EPOLLIN)
