"""The life of a cell: it answers health probes, is specialised once, and is an instance or a template from then on."""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from . import forkable, instance, loader, logs, open_runtimes, process, warmth
from .failures import Failure
from .http1 import Parser
from .instance import Instance
from .reception import Reception
from .spec import Spec
from .template import Template

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise, just before user code is loaded: mounts the code and drops privileges. It may
have a method ``practise``, for when nobody waits."""


def serve(listener: socket.socket, prepare: Prepare | None = None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process.

    It ends with code 0 on SIGTERM: at once where there is no user code yet, else after the requests that run.
    """
    process.prepare()
    logs.prepare()
    process.reset_signals()
    process.on_sigterm(lambda *_: os._exit(0))
    process.detach()
    logs.install()
    cell = _Cell(prepare)
    connection = Reception(cell.specialise, practise=partial(_practise, prepare)).receive(listener)
    assert cell.instance is not None
    if cell.is_template:
        if connection is not None:
            connection.socket.close()
        listener, connection = Template(listener).run(), None  # from here on this is a fork
    cell.instance.run(listener, connection)
    atexit._run_exitfuncs()
    logs.end()
    os._exit(0)


def _practise(prepare: Prepare | None) -> None:
    """Goes the way of becoming an instance, as far as the sandbox lets it."""
    rehearse = getattr(prepare, "practise", None)
    if rehearse is not None:
        rehearse()
    warmth.practise()


class _Cell:
    """What has no code yet.

    Attributes:
        instance: what it became.
        is_template: whether it is there to be forked from, and does not serve itself.
    """

    def __init__(self, prepare: Prepare | None) -> None:
        self.instance: Instance | None = None
        self.is_template = False
        self._prepare = prepare

    def specialise(self, body: bytes, parser: Parser) -> tuple[int, dict[str, Any]]:
        """Becomes an instance or a template. Returns status and document of the answer."""
        try:
            document = json.loads(body)
            spec = Spec.from_json(document)
            if self._prepare is not None:
                self._prepare(document)
            process.become(spec)
            logs.tell_apart(one_at_a_time=spec.concurrency == 1)
        except Exception as error:
            return 500, _error(Failure.of(error))
        before = forkable.descriptors() if spec.template else {}
        started = time.perf_counter()
        try:
            loaded = instance.load(spec)
        except BaseException as error:
            failure = loader.explain(error, spec.code)
            failure.log()
            return 422, _error(failure)
        load_ms = round((time.perf_counter() - started) * 1000, 3)
        open_runtimes.startup = load_ms / 1000
        if spec.template:
            logs.end()  # unfinished lines are not the forks'
            if obstacle := forkable.obstacle(spec.code, before):
                return 409, {"error": {"type": "Unforkable", "message": obstacle}}
        self.instance, self.is_template = loaded, spec.template
        parser.max_body = spec.max_body
        return 200, {"mode": loaded.mode, "load_ms": load_ms}


def _error(failure: Failure) -> dict[str, Any]:
    return {"error": failure._asdict()}
