"""The ports of a guest that are connections: in a clone they are others, under the descriptors that they had."""

import os
import socket
from pathlib import Path

import pytest

from martlet.microvm.links import Interests, Link
from martlet.microvm.ports import ConnectedPorts


@pytest.fixture
def listeners(tmp_path: Path):
    found = {}
    for name in ("control", "link0"):
        found[name] = socket.socket(socket.AF_UNIX)
        found[name].bind(str(tmp_path / name))
        found[name].listen()
    yield found
    for listener in found.values():
        listener.close()


def connect(folder: Path) -> dict[str, socket.socket]:
    """What a host does, with a machine of its own."""
    connections = {name: socket.socket(socket.AF_UNIX) for name in ("control", "link0")}
    for name, connection in connections.items():
        connection.connect(str(folder / name))
    return connections


def test_a_clone_speaks_to_its_own_host_by_the_same_descriptors(tmp_path: Path, listeners):
    first = connect(tmp_path)
    ports = ConnectedPorts(listeners)
    before = dict(ports.descriptors)
    second = connect(tmp_path)

    assert ports.renew()

    assert ports.descriptors == before
    os.write(ports.descriptors["control"], b"here")
    assert second["control"].recv(10) == b"here"
    assert first["control"].recv(10) == b""
    for connection in (*first.values(), *second.values()):
        connection.close()
    for descriptor in ports.descriptors.values():
        os.close(descriptor)


def test_links_go_on_with_the_connections_of_the_clone(tmp_path: Path, listeners):
    first = connect(tmp_path)
    ports = ConnectedPorts(listeners)
    interests, (here, there) = Interests(), socket.socketpair()
    link = Link(ports.descriptors["link0"], interests, lambda: here)
    second = connect(tmp_path)
    ports.renew()
    os.set_blocking(ports.descriptors["link0"], False)

    interests.renew()

    second["link0"].sendall(b"\0\0\0\x02hi")
    ((descriptor, event),) = interests.events.poll(5)
    link.serve(descriptor, event)
    assert there.recv(10) == b"hi"
    link.close()
    for connection in (there, *first.values(), *second.values()):
        connection.close()
    for descriptor in ports.descriptors.values():
        os.close(descriptor)
    interests.events.close()
