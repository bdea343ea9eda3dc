"""Network namespaces that are made ahead."""

import os
import socket

import pytest

from martlet.sandbox import network
from martlet.sandbox.network import NONE, Spare
from tests.alone import alone

pytestmark = pytest.mark.root


def own() -> str:
    return os.readlink("/proc/self/ns/net")


def test_who_makes_one_comes_home():
    def make() -> list[bool]:
        home, spare = own(), Spare()
        nothing, wanted = spare.take(), spare.wanted
        spare.make()
        return [nothing is None, wanted, not spare.wanted, own() == home]

    assert alone(make) == [True] * 4


def test_each_is_taken_once_and_is_what_a_new_one_is():
    def take() -> list[object]:
        spare = Spare()
        spare.make()
        first, then = spare.take(), spare.take()
        spare.make()
        second = spare.take()
        network.enter(NONE, first)
        one = own()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname(), timeout=20).close()
        network.enter(NONE, second)
        return [then, one != own(), socket.if_nameindex()]

    assert alone(take) == [None, True, [[1, "lo"]]]


def test_a_host_that_has_none_left_is_borne(monkeypatch: pytest.MonkeyPatch):
    def refuse(_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(network.syscalls, "unshare", refuse)
    spare = Spare()
    spare.make()

    assert spare.take() is None
