"""Answers for a cell until it has code: health probes, and the one request that specialises it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from . import internal
from .blocking import Connection, accept
from .http1 import BadRequest, Disconnected, Head, Parser

Specialise = Callable[[bytes, Parser], tuple[int, dict[str, Any]]]
"""Called once, with the body of the request and what reads the connection. Returns status and document."""

_MAX_SPEC = 1024 * 1024


class Reception:
    """See the module."""

    def __init__(self, specialise: Specialise) -> None:
        self._specialise = specialise
        self._used = self._over = False

    def receive(self, listener: socket.socket) -> Connection | None:
        """Answers one connection after the other, until what specialises the cell has said 200.

        Returns:
            The connection over which that came, if it may go on.
        """
        while True:
            connection = Connection(accept(listener), _MAX_SPEC)
            may_go_on = self._converse(connection)
            if not may_go_on:
                connection.socket.close()
            if self._over:
                return connection if may_go_on else None

    def _converse(self, connection: Connection) -> bool:
        """Answers requests until there are no more or it is over. Whether the connection may go on."""
        try:
            while not self._over and (head := connection.head()) is not None:
                connection.send(self._answer(head, connection))
                if not head.keep_alive:
                    return False
        except BadRequest as error:
            connection.refuse(error)
        except Disconnected:
            return False
        return self._over

    def _answer(self, head: Head, connection: Connection) -> bytes:
        body = connection.body()
        if (head.method, head.target) == ("POST", internal.SPECIALISE) and not self._used:
            self._used = True
            status, document = self._specialise(body, connection.parser)
            self._over = status == 200
            return internal.respond(head, status, document)
        if head.target.startswith(internal.PREFIX):
            return internal.answer(head)
        error = {"type": "NoCode", "message": "this cell has no code yet"}
        return internal.respond(head, 503, {"error": error})
