"""A cell of a guest as its agent has it: the connection that is made ahead, and what only the cell hears."""

import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from martlet.microvm.resident import Resident


class Cell:
    """A process in the place of a cell, and what it listens on."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.resident = Resident(str(at))
        self.resident.start(self._fork)

    def _fork(self, listener: socket.socket) -> int:
        self.listener = listener.dup()
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 1024)
            signal.pause()
        return pid

    @property
    def waiting(self) -> bool:
        """Whether somebody has connected whom it has not accepted."""
        return bool(select.select([self.listener], [], [], 0)[0])

    def accepted(self) -> socket.socket:
        assert self.waiting
        return self.listener.accept()[0]


@pytest.fixture
def cell(tmp_path) -> Iterator[Cell]:
    made = Cell(tmp_path / "sock")
    try:
        yield made
    finally:
        made.listener.close()
        if made.at.exists():
            made.resident.end()


def meet(ours: socket.socket, theirs: socket.socket) -> bool:
    ours.sendall(b"?")
    return theirs.recv(1) == b"?"


def test_code_comes_over_a_connection_that_was_there_before(cell):
    cell.resident.connect_ahead()
    accepted = cell.accepted()
    cell.resident.tell({})

    with accepted, cell.resident.connect() as connection:
        assert meet(connection, accepted)
        assert not cell.waiting  # nobody needs one more


def test_another_is_made_ahead_where_the_first_brought_no_code(cell):
    cell.resident.connect_ahead()
    with cell.accepted() as accepted, cell.resident.connect() as about_its_health:
        assert meet(about_its_health, accepted)
        ahead = cell.accepted()
    cell.resident.tell({})

    with ahead, cell.resident.connect() as connection:
        assert meet(connection, ahead)


def test_one_that_the_cell_has_closed_is_made_anew(cell):
    """As it closes all but that over which it got its code, which may have come before the agent heard of it."""
    cell.resident.connect_ahead()
    with cell.accepted(), cell.resident.connect():
        cell.accepted().close()
        cell.resident.tell({})

        with cell.resident.connect() as connection, cell.accepted() as accepted:
            assert meet(connection, accepted)


def test_all_others_are_made_when_they_are_wanted(cell):
    cell.resident.connect_ahead()
    cell.resident.tell({})
    with cell.accepted(), cell.resident.connect():
        pass

    with cell.resident.connect() as connection, cell.accepted() as accepted:
        assert meet(connection, accepted)


def test_a_cell_that_is_not_reached_ahead_is_reached_all_the_same(cell):
    with cell.resident.connect() as connection, cell.accepted() as accepted:
        assert meet(connection, accepted)
        assert not cell.waiting


def test_it_hears_what_it_is_told(cell):
    cell.resident.tell({"WHO": "Zoë"})

    theirs = os.dup(cell.resident.hears)
    assert cell.resident.hear() == {"WHO": "Zoë"}
    cell.resident.hears = theirs  # as in a process of its own


def test_nothing_of_it_is_left_at_its_end(cell):
    pid = cell.resident.pid
    cell.resident.tell({})

    cell.resident.end()

    assert not cell.at.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
