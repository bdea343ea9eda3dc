"""The client of QEMU's machine protocol, against a monitor that says what a test tells it to."""

import json
import socket
from collections.abc import Iterator

import pytest

from martlet.microvm.qmp import Qmp, QmpError

GREETING = {"QMP": {"version": {}, "capabilities": []}}
DONE = {"return": {}}


class Monitor:
    """The other end: it has said all of its lines before anybody asks."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.ours.settimeout(20)

    def say(self, *documents: object) -> None:
        for document in documents:
            self._theirs.sendall(json.dumps(document).encode() + b"\r\n")

    def heard(self) -> list[str]:
        lines = self._theirs.recv(65536).splitlines()
        return [json.loads(line)["execute"] for line in lines]

    def end(self) -> None:
        self._theirs.close()

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


def test_it_negotiates_and_returns_what_commands_return(monitor):
    monitor.say(GREETING, DONE, {"return": {"status": "running"}})

    assert Qmp(monitor.ours).execute("query-status") == {"status": "running"}
    assert monitor.heard() == ["qmp_capabilities", "query-status"]


def test_events_that_come_before_an_answer_are_not_lost(monitor):
    monitor.say(GREETING, DONE, {"event": "STOP"}, {"event": "RESUME"}, DONE)
    qmp = Qmp(monitor.ours)

    qmp.execute("migrate-incoming", uri="fd:state")

    qmp.wait("RESUME")
    qmp.wait("STOP")


def test_a_refusal_says_which_command_and_why(monitor):
    monitor.say(GREETING, DONE, {"error": {"class": "GenericError", "desc": "no such descriptor"}})
    qmp = Qmp(monitor.ours)

    with pytest.raises(QmpError, match="QEMU refuses migrate: no such descriptor"):
        qmp.execute("migrate", uri="fd:state")


def test_an_end_is_told_from_an_answer(monitor):
    monitor.say(GREETING, DONE)
    qmp = Qmp(monitor.ours)
    monitor.end()

    with pytest.raises(QmpError, match="QEMU has ended"):
        qmp.wait("RESUME")


def test_silence_is_not_waited_out_for_ever(monitor):
    monitor.ours.settimeout(0.05)

    with pytest.raises(QmpError, match="does not answer"):
        Qmp(monitor.ours)
