"""A build under way, as the work sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from martlet.builder.hold import Hold
from martlet.builder.lines import BuildLine, read_log, write_lines
from martlet.errors import MartletError
from martlet.model import Build, BuildState

if TYPE_CHECKING:
    from martlet.storage.registry import Registry


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a deploy ended well: the revision that serves, and whether it did so before."""

    revision: int
    unchanged: bool = False


class RunningBuild:
    """See the module.

    Args:
        build: what is known of it now.
        folder: where its log is, and a folder of its own.
        slots: held by whoever does heavy work, so that not too many do at once.
        registry: by which to write what it does.
        hold: this machine's on it; None where nobody else can take it up.
        said: what earlier attempts on other machines have said.

    Attributes:
        build: what is known of it now.
        folder: a folder of its own, removed when it ends.
        committed: whether it is too late to cancel it.
        lost: whether another machine has it now, or will.
        stopped: whether somebody has cancelled it from another machine.
        task: ends with the outcome, or with the error that the deploy failed with.
    """

    task: asyncio.Task[Outcome]

    def __init__(
        self,
        build: Build,
        folder: Path,
        slots: asyncio.Semaphore,
        registry: Registry,
        hold: Hold | None = None,
        said: Sequence[BuildLine] = (),
    ) -> None:
        self.build = build
        self.folder = folder / "work"
        self.slots = slots
        self.registry = registry if hold is None else hold.registry
        self.hold = hold
        self.committed = False
        self.lost = self.stopped = False
        self.folder.mkdir(parents=True)
        if said:
            (folder / "log").write_bytes(write_lines(said))
        self.lines = read_log(folder)
        self.news = asyncio.Event()
        self._log = (folder / "log").open("ab", buffering=0)

    def say(self, message: str) -> None:
        """Adds a line to the log."""
        line = BuildLine(time=time(), message=message)
        self.lines.append(line)
        self._log.write(write_lines([line]))
        self.tell()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits until there is room for another that builds, and takes it."""
        if self.slots.locked():
            self.say("waiting for other builds to end")
            self.enter(BuildState.QUEUED)
        async with self.slots:
            self.enter(BuildState.BUILDING)
            yield

    def enter(self, state: BuildState) -> None:
        """Goes on to the next step."""
        phase = self.build.phase.after(state)
        self.build = self.build.model_copy(update={"state": state, "phase": phase})
        self.tell()

    def note_commit(self, commit: str) -> None:
        """It is made of this commit of a git repository."""
        self.build = self.build.model_copy(update={"commit": commit})

    def commit(self) -> None:
        """It takes effect now."""
        self.committed = True

    def end(
        self, state: BuildState, outcome: Outcome | None = None, error: MartletError | None = None
    ) -> None:
        """Nothing more will happen."""
        ended: dict[str, object] = {
            "state": state,
            "phase": self.build.phase.after(state),
            "finished": time(),
        }
        if outcome is not None:
            ended |= {"revision": outcome.revision, "unchanged": outcome.unchanged}
        if error is not None:
            ended |= {"error": error.detail, "code": error.code, "field": error.field}
        self.build = self.build.model_copy(update=ended)
        self._log.close()

    def abandon(self) -> None:
        """The next life of this process, or another machine, goes on with it."""
        self._log.close()

    def tell(self) -> None:
        """Wakes whoever follows the log."""
        self.news.set()
        self.news = asyncio.Event()
