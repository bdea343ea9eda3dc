"""Start-up and shutdown of an ASGI application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .failures import Failure

if TYPE_CHECKING:
    from .asgi import App, Event

_VERSIONS = {"version": "3.0", "spec_version": "2.0"}


class StartupFailed(Exception):
    """The application said that its start-up failed."""


class Lifespan:
    """One run of an application's lifespan; applications that have none are left alone.

    Attributes:
        state: what the application wants its requests to find in their scope.
    """

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._from_app: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Runs the application's start-up.

        Raises:
            BaseException: what the application raised after it had said that it failed.
            StartupFailed: it said so and raised nothing.
        """
        self._task = asyncio.create_task(self._run())
        said = await self._ask("lifespan.startup")
        if said is None:
            self._task = None  # it raised or returned at once: it has no lifespan
        elif said["type"] == "lifespan.startup.failed":
            await self._task
            raise StartupFailed(said.get("message") or "the application's start-up failed")

    async def stop(self) -> None:
        """Runs the application's shutdown; what goes wrong there is logged."""
        if self._task is not None:
            try:
                await self._ask("lifespan.shutdown")
                await self._task
            except BaseException as error:
                Failure.of(error).log()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self.state}
        await self._app(scope, self._to_app.get, self._from_app.put)

    async def _ask(self, event: str) -> Event | None:
        """Tells the application something; returns what it says, or None where it ended without a word."""
        assert self._task is not None
        self._to_app.put_nowait({"type": event})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        self._task.exception()  # looked at, so that asyncio does not report it
        return None
