"""Roots of containers that are images: the deploy that needs one first makes it, and no lane does while it loads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from martlet.images.base import HOST, BaseImage
from martlet.images.inside import Inside
from martlet.images.store import Images
from martlet.model import ExecutionMode, FunctionConfig
from martlet.runtimes.runtime import Runtime
from martlet.settings import SystemSettings


class Roots:
    """See the module.

    Args:
        settings: of the platform.
        images: of this machine.
    """

    def __init__(self, settings: SystemSettings, images: Images) -> None:
        self._base = None
        if not settings.disable_container and settings.base_image != HOST:
            self._base = BaseImage(images, settings.base_image, settings.max_image)
        self._fitting: set[tuple[str, str]] = set()

    def needs(self, config: FunctionConfig) -> bool:
        """Whether a function has such a root."""
        return (
            self._base is not None
            and config.execution_mode is ExecutionMode.CONTAINER
            and config.image is None
        )

    async def make(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        """Returns once the root of a runtime is there; ``say`` is told how it goes.

        A thread makes it, which goes on though nobody waits any more.

        Raises:
            Invalid: there can be none, or it lacks what the runtime takes.
            Unavailable: nobody has imported it, the disk is full, or what it is made of is out of reach.
        """
        loop, waiting = asyncio.get_running_loop(), True

        def hear(line: str) -> None:
            if waiting:
                say(line)

        def tell(line: str) -> None:
            with suppress(RuntimeError):  # the platform has stopped meanwhile
                loop.call_soon_threadsafe(hear, line)

        try:
            await asyncio.to_thread(self._make, runtime, tell)
        finally:
            waiting = False

    def _make(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        assert self._base is not None
        image = self._base.of(runtime, say)
        if (image.digest, runtime.name) not in self._fitting:
            Inside(image.root).fitted(runtime)
            self._fitting.add((image.digest, runtime.name))
