"""What builds say, as all machines can read it: in parts, each a blob, in the order in which they were said.

Each attempt has a log of its own, which begins with what the one before it had said: a machine that was cut off, and
does not know yet that another one goes on with its build, writes to what nobody reads any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from martlet.builder.lines import BuildLine, read_lines, write_lines
from martlet.model import Build
from martlet.storage.blobs import BlobNotFound, Blobs

PREFIX = "build-logs"


class BuildLogs:
    """See the module. Every method raises `BlobError` where the blobs are out of reach.

    Args:
        blobs: that all machines share.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, build: Build, part: int, lines: Sequence[BuildLine]) -> None:
        """Writes a part of its attempt; the first has the number 0, and there is no gap."""
        await self._blobs.put(PREFIX, _digest(build.id, build.attempt, part), write_lines(lines))

    async def part(self, build: Build, part: int) -> list[BuildLine] | None:
        """Returns a part of its attempt; None where it is not there (yet)."""
        try:
            return read_lines(await self._blobs.get(PREFIX, _digest(build.id, build.attempt, part)))
        except BlobNotFound:
            return None

    async def lines(self, build: Build) -> list[BuildLine]:
        """Returns all that a build has said, as the last of its attempts that came to say anything has it."""
        for attempt in _attempts(build):
            found: list[BuildLine] = []
            part = 0
            while (lines := await self.part(attempt, part)) is not None:
                found += lines
                part += 1
            if part:
                return found
        return []

    async def delete(self, build: Build) -> None:
        """Deletes all of it."""
        for attempt in _attempts(build):
            part = 0
            while await self._blobs.exists(PREFIX, digest := _digest(build.id, attempt.attempt, part)):
                await self._blobs.delete(PREFIX, digest)
                part += 1


def _attempts(build: Build) -> list[Build]:
    """Returns the build at each of its attempts, the last first."""
    return [build.model_copy(update={"attempt": attempt}) for attempt in range(max(1, build.attempt), 0, -1)]


def _digest(build: str, attempt: int, part: int) -> str:
    # Versions that know of no attempts write, and look for, those of the first.
    name = f"{build}/{part}" if attempt <= 1 else f"{build}/{attempt}/{part}"
    return hashlib.sha256(name.encode()).hexdigest()
