"""What a guest rehearses: it is told what a clone is told, and what it does not do is said."""

import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from martlet.microvm.control import Control
from martlet.microvm.links import Interests, Link, PortGone
from martlet.microvm.rehearsal import Example, Guest, rehearse

PATIENCE = 2.0
LIMITS = {"memory": 128 << 20, "processes": 100, "scratch": 64 << 20}
EXAMPLE = {"handler.py": "def handle(request): ...\n"}
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Stage:
    """A guest of which only the agent's words and one link are real. ``heard`` is all that it was told or asked."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._control, self._control_end = self._pair()
        self._port, self._port_end = self._pair()
        self.guest = Guest(self._control.fileno(), self._port.fileno(), PATIENCE)
        self.heard: list[Any] = []

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        return self._held.enter_context(ours), self._held.enter_context(theirs)

    def plays(self, part: Callable[[Control], None]) -> None:
        """Has a thread do what the agent does, and another what its cell does."""
        self._threads = [
            threading.Thread(target=part, args=(Control(self._control_end.fileno()),)),
            threading.Thread(target=self._carry),
        ]
        for thread in self._threads:
            thread.start()

    def _carry(self) -> None:
        interests = Interests()
        link = Link(self._port_end.fileno(), interests, self._connect)
        with suppress(PortGone):  # the test is over
            while True:
                for descriptor, event in interests.events.poll():
                    link.serve(descriptor, event)

    def _connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._answer, args=(theirs,), daemon=True).start()
        return ours

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while request := connection.recv(1 << 16):
                head, _, _ = request.partition(b"\r\n")
                self.heard.append(head.decode().rpartition(" ")[0])
                connection.sendall(ANSWER[:20])
                connection.sendall(ANSWER[20:])

    def end(self) -> None:
        for end in (self._control_end, self._port_end):
            end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.end()
        for thread in self._threads:
            thread.join()
        self._held.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def agent_with(stage: Stage, example: dict[str, str] | None, *, cell: bool) -> Callable[[Control], None]:
    def agent(control: Control) -> None:
        stage.heard.append(control.receive())
        control.send(event="rehearses", cell=cell, limits=LIMITS, example=example)
        if example is not None:
            stage.heard.append(control.receive())
            with tempfile.TemporaryDirectory() as folder:
                control.receive_folder(folder)
                stage.heard.append({path.name: path.read_text() for path in Path(folder).iterdir()})
            control.send(event="equipped")
            stage.heard.append(control.receive())
            control.send(event="rests")

    return agent


def test_a_guest_with_an_example_is_told_what_a_clone_is_told(stage: Stage):
    stage.plays(agent_with(stage, EXAMPLE, cell=True))

    assert rehearse(stage.guest) == Example(EXAMPLE, LIMITS)

    words = [each for each in stage.heard if not isinstance(each, str)]
    asked = [each for each in stage.heard if isinstance(each, str)]
    assert [each.get("op") for each in words] == ["rehearse", "equip", None, "rest"]
    assert words[1].items() >= LIMITS.items()
    assert words[1]["token"] is None
    assert not words[1]["dependencies"]
    assert words[2] == EXAMPLE
    assert asked == [
        "POST /_martlet/specialise",
        "GET /",
        "POST /items?of=example",
        "GET /_martlet/health",
    ]


@pytest.mark.parametrize(("cell", "asked"), [(True, ["GET /_martlet/health"]), (False, [])])
def test_a_guest_without_an_example_is_asked_for_its_health_if_a_cell_waits(
    stage: Stage, cell: bool, asked: list
):
    stage.plays(agent_with(stage, None, cell=cell))

    assert rehearse(stage.guest) is None

    assert stage.heard == [{"op": "rehearse"}, *asked]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([], "the guest does not answer"),
        ([{"event": "exited", "code": 1}], "the guest cannot rehearse: {'event': 'exited'"),
        (
            [{"event": "rehearses", "cell": True, "limits": LIMITS, "example": EXAMPLE}],
            "the guest does not answer",
        ),
    ],
    ids=["nothing", "that its cell has ended", "nothing to its code"],
)
def test_a_guest_that_does_something_else_is_not_waited_for(stage: Stage, says: list[dict], why: str):
    def agent(control: Control) -> None:
        control.receive()
        for each in says:
            control.send(**each)

    stage.plays(agent)

    with pytest.raises(OSError, match=re.escape(why)):
        rehearse(stage.guest)


def test_a_guest_that_has_ended_is_heard_of(stage: Stage):
    stage.plays(lambda control: None)
    stage.end()

    with pytest.raises((OSError, EOFError)):
        rehearse(stage.guest)
