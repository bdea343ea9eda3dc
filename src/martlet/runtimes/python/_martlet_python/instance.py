"""An instance: the user's code, loaded, with the server that suits the contract it keeps."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

from . import asgi, blocking, contracts, evented, loader, open_runtimes, wsgi
from .contracts import Mode
from .handle import AsyncHandler, SyncHandler
from .lifespan import Lifespan
from .spec import Spec


class Instance(Protocol):
    """What a cell becomes."""

    mode: Mode

    def run(
        self, listener: socket.socket, first: blocking.Connection | None, rest: blocking.Rest | None = None
    ) -> None:
        """Serves invocations until SIGTERM.

        Args:
            listener: where connections come from.
            first: one that is open already.
            rest: see `blocking.Rest`.
        """


def load(spec: Spec, files: list[str]) -> Instance:
    """Imports the user's code, whose folder has these files, and makes it ready to serve.

    Raises:
        BaseException: whatever the code raised; `loader.HandlerNotFound`, `contracts.NotAHandler`.
    """
    target = loader.load(spec.code, spec.handler, files)
    mode = contracts.mode_of(target, spec.handler)
    match mode:
        case "sync":
            return _Blocking(mode, SyncHandler(target, guarded=open_runtimes.secret() != ""), spec)
        case "wsgi":
            return _Blocking(mode, wsgi.Application(target, threads=spec.concurrency > 1), spec)
        case "async":
            return _Evented(mode, AsyncHandler(target, guarded=open_runtimes.secret() != ""), spec)
        case "asgi":
            return _Application(target, spec)


class _Blocking:
    def __init__(self, mode: Mode, answer: blocking.Answer, spec: Spec) -> None:
        self.mode = mode
        self._server = blocking.Server(answer, spec.concurrency, spec.max_body)

    def run(
        self, listener: socket.socket, first: blocking.Connection | None, rest: blocking.Rest | None = None
    ) -> None:
        self._server.run(listener, first, rest)


class _Evented:
    def __init__(self, mode: Mode, answer: evented.Answer, spec: Spec) -> None:
        self.mode = mode
        self._runner = asyncio.Runner()
        self._server = evented.Server(answer, spec.max_body)

    def run(
        self, listener: socket.socket, first: blocking.Connection | None, rest: blocking.Rest | None = None
    ) -> None:
        with self._runner as runner:
            runner.run(self._serve(listener, first))

    async def _serve(self, listener: socket.socket, first: blocking.Connection | None) -> None:
        await self._server.run(listener, first)


class _Application(_Evented):
    """An ASGI application: its start-up is part of loading it."""

    def __init__(self, app: Any, spec: Spec) -> None:
        self._lifespan = Lifespan(app)
        super().__init__("asgi", asgi.Application(app, self._lifespan.state, spec.max_body), spec)
        self._runner.run(self._lifespan.start())

    async def _serve(self, listener: socket.socket, first: blocking.Connection | None) -> None:
        await super()._serve(listener, first)
        await self._lifespan.stop()
