"""The life of a cell: it answers health probes, is specialised once, and is an instance or a template from then on."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import forkable, instance, internal, loader, logs, open_runtimes, process, warmth
from .blocking import Connection
from .failures import Failure
from .http1 import BadRequest, Disconnected, Head, Parser
from .instance import Instance
from .spec import Spec
from .template import Template

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise, just before user code is loaded: mounts the code and drops privileges."""

_MAX_SPEC = 1024 * 1024


def serve(listener: socket.socket, prepare: Prepare | None = None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process.

    It ends with code 0 on SIGTERM: at once where there is no user code yet, else after the requests that run.
    """
    process.prepare()
    logs.prepare()
    process.reset_signals()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    warmth.practise()
    process.detach()
    logs.install()
    cell = _Cell(prepare)
    connection: Connection | None = None
    while cell.instance is None:
        peer, _ = listener.accept()
        connection = Connection(peer, _MAX_SPEC)
        if not cell.converse(connection):
            connection.socket.close()
            connection = None
    if cell.is_template:
        if connection is not None:
            connection.socket.close()
        listener, connection = Template(listener).run(), None  # from here on this is a fork
    cell.instance.run(listener, connection)
    atexit._run_exitfuncs()
    logs.end()
    os._exit(0)


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
        self._used = False

    def converse(self, connection: Connection) -> bool:
        """Answers requests until there are no more or this is an instance. Whether the connection may go on."""
        try:
            while self.instance is None and (head := connection.head()) is not None:
                connection.send(self._answer(head, connection))
                if not head.keep_alive:
                    return False
        except BadRequest as error:
            connection.refuse(error)
        except Disconnected:
            return False
        return self.instance is not None

    def _answer(self, head: Head, connection: Connection) -> bytes:
        body = connection.body()
        if (head.method, head.target) == ("POST", internal.SPECIALISE) and not self._used:
            return internal.respond(head, *self._specialise(body, connection.parser))
        if head.target.startswith(internal.PREFIX):
            return internal.answer(head)
        error = {"type": "NoCode", "message": "this cell has no code yet"}
        return internal.respond(head, 503, {"error": error})

    def _specialise(self, body: bytes, parser: Parser) -> tuple[int, dict[str, Any]]:
        """Becomes an instance. Returns status and document of the answer."""
        self._used = True
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
