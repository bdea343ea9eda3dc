"""Answers for a cell until it has code: health probes, and the one request that specialises it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from . import internal
from .blocking import Connection, Rest, accept
from .http1 import BadRequest, Disconnected, Head, Parser

Specialise = Callable[[bytes, Parser], tuple[int, dict[str, Any]]]
"""Called once, with the body of the request and what reads the connection. Returns status and document."""

_MAX_SPEC = 1024 * 1024
_IDLE_MS = 50
"""How long nobody has asked for anything when a cell takes itself for one that stands ready."""


class Reception:
    """See the module.

    Args:
        specialise: see `Specialise`.
        goes_on: whether a connection over which it was specialised may carry invocations.
        practise: what a cell does once, when it stands ready and nobody waits for it.
        rest: for the connection that goes on (see `blocking.Rest`).
    """

    def __init__(
        self,
        specialise: Specialise,
        *,
        goes_on: bool = True,
        practise: Callable[[], None] | None = None,
        rest: Rest | None = None,
    ) -> None:
        self._specialise = specialise
        self._rest = rest
        self._goes_on = goes_on
        self._practise = practise
        self._used = self._over = False
        self._connections: dict[int, Connection] = {}
        self._events = select.poll()

    def receive(self, listener: socket.socket, first: Connection | None = None) -> Connection | None:
        """Answers what comes over any connection, until what specialises the cell has said 200.

        Args:
            listener: where connections come from.
            first: a connection that is open already.

        Returns:
            The connection over which that came, if it may go on.
        """
        self._events.register(listener, select.POLLIN)
        if first is not None:
            self._welcome(first)
        while True:
            for descriptor, _ in self._happened():
                connection = self._connections.get(descriptor)
                if connection is None:
                    self._welcome(Connection(accept(listener), _MAX_SPEC, self._rest))
                    continue
                may_go_on = self._converse(connection)
                if not may_go_on or self._over:
                    self._part(connection, close=not may_go_on)
                if self._over:
                    for other in [*self._connections.values()]:
                        self._part(other)
                    return connection if may_go_on else None

    def _happened(self) -> list[tuple[int, int]]:
        """Waits for requests; practises where there are none."""
        happened = self._events.poll(None if self._practise is None else _IDLE_MS)
        if not happened and self._practise is not None:
            self._practise()
            self._practise = None
        return happened

    def _welcome(self, connection: Connection) -> None:
        self._connections[connection.socket.fileno()] = connection
        self._events.register(connection.socket, select.POLLIN)

    def _part(self, connection: Connection, *, close: bool = True) -> None:
        self._events.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]
        if close:
            connection.socket.close()

    def _converse(self, connection: Connection) -> bool:
        """Answers a request, and what has come with it. Whether the connection may go on."""
        try:
            while (head := connection.head()) is not None:
                connection.send(self._answer(head, connection))
                if not head.keep_alive:
                    return False
                if self._over or not connection.parser.buffered:
                    return True
        except BadRequest as error:
            connection.refuse(error)
        except Disconnected:
            pass
        return False

    def _answer(self, head: Head, connection: Connection) -> bytes:
        body = connection.body()
        if (head.method, head.target) == ("POST", internal.SPECIALISE) and not self._used:
            self._used = True
            status, document = self._specialise(body, connection.parser)
            self._over = status == 200
            head.keep_alive = head.keep_alive and self._goes_on
            return internal.respond(head, status, document)
        if head.target.startswith(internal.PREFIX):
            return internal.answer(head)
        error = {"type": "NoCode", "message": "this cell has no code yet"}
        return internal.respond(head, 503, {"error": error})
