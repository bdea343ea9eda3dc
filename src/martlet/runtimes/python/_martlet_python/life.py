"""The life of the process of a cell: it answers health probes, is given code once, and serves that until its end."""

from __future__ import annotations

import atexit
import os
import socket
from functools import partial
from typing import NoReturn

from . import layout, logs, process, warmth
from .cell import Cell, Prepare
from .reception import Reception
from .template import Template

_stands_by = False
"""Whether this process has done what `stand_by` does."""


def prepare() -> None:
    """Does what is the same for every cell, once, in the process that cells are forked from, or that becomes one."""
    process.prepare()
    logs.prepare()


def warm() -> None:
    """Prepares the process that cells are forked from. Leaves no thread and no descriptor behind."""
    warmth.warm()
    prepare()
    layout.settle(warmth.practise)


def stand_by() -> None:
    """Does in a fork what of `serve` can be done before that is called, and goes the ways of it, while nobody waits."""
    global _stands_by
    _become_a_cell()
    _stands_by = True
    warmth.practise()


def serve(listener: socket.socket, prepare: Prepare | None = None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process, which is prepared.

    It ends with code 0 on SIGTERM: at once where there is no user code yet, else after the requests that run.
    """
    if not _stands_by:
        _become_a_cell()
    cell, rest = Cell(prepare), getattr(prepare, "rest", None)
    reception = Reception(cell.specialise, practise=partial(_practise, prepare), rest=rest)
    connection = reception.receive(listener)
    assert cell.instance is not None
    if cell.is_template:
        if connection is not None:
            connection.socket.close()
        listener, connection = Template(listener).run(), None  # from here on this is a fork
    cell.instance.run(listener, connection, rest)
    atexit._run_exitfuncs()
    logs.end()
    os._exit(0)


def _become_a_cell() -> None:
    process.detach(on_sigterm=lambda *_: os._exit(0))
    logs.install()


def _practise(prepare: Prepare | None) -> None:
    """Goes the way of becoming an instance, as far as the sandbox lets it."""
    rehearse = getattr(prepare, "practise", None)
    if rehearse is not None:
        rehearse()
    warmth.practise()
