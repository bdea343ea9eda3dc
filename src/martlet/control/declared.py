"""The functions that the configuration file declares: made, or changed, until they are as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from martlet.builder.source import Inline, Local, Source
from martlet.control.deploy import Deploy, Expect
from martlet.control.deployments import Deployments
from martlet.errors import MartletError
from martlet.settings import DeclaredFunction

log = structlog.get_logger()

FIRST_RETRY = 5.0
LAST_RETRY = 300.0
"""Seconds until a function that could not be deployed is tried again: doubled each time, up to this."""


class Declared:
    """See the module.

    Args:
        functions: what is declared, by name.
        deployments: deploys it.
    """

    def __init__(self, functions: Mapping[str, DeclaredFunction], deployments: Deployments) -> None:
        self._functions = functions
        self._deployments = deployments
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begins; a function that cannot be deployed is tried again later, and stops nothing else."""
        self._tasks = [asyncio.create_task(self._keep(name)) for name in self._functions]

    async def close(self) -> None:
        """Stops trying."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        delay = FIRST_RETRY
        while not await self._deploy(name):
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY)

    async def _deploy(self, name: str) -> bool:
        declared = self._functions[name]
        deploy = Deploy(
            name=name,
            source=_source(declared),
            config=declared.config.model_dump(mode="json", exclude_unset=True),
            expect=Expect.EITHER,
            replace=True,
        )
        try:
            build = await self._deployments.begin(deploy, keep=False)
            outcome = await asyncio.shield(build.task)
        except MartletError as error:
            log.error("declared_function_not_deployed", function=name, error=error.detail, **error.extra)
            return False
        except Exception:
            log.exception("declared_function_not_deployed", function=name)
            return False
        log.info("declared_function", function=name, revision=outcome.revision, unchanged=outcome.unchanged)
        return True


def _source(declared: DeclaredFunction) -> Source | None:
    if declared.code is not None:
        return Inline(declared.code)
    return Local(declared.path) if declared.path is not None else None
