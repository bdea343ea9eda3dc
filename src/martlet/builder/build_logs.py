"""What builds say, as all machines can read it: in parts, each a blob, in the order in which they were said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from martlet.builder.lines import BuildLine, read_lines, write_lines
from martlet.storage.blobs import BlobNotFound, Blobs

PREFIX = "build-logs"


class BuildLogs:
    """See the module. Every method raises `BlobError` where the blobs are out of reach.

    Args:
        blobs: that all machines share.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, build: str, part: int, lines: Sequence[BuildLine]) -> None:
        """Writes a part; the first has the number 0, and there is no gap."""
        await self._blobs.put(PREFIX, _digest(build, part), write_lines(lines))

    async def part(self, build: str, part: int) -> list[BuildLine] | None:
        """Returns a part; None where it is not there (yet)."""
        try:
            return read_lines(await self._blobs.get(PREFIX, _digest(build, part)))
        except BlobNotFound:
            return None

    async def parts(self, build: str) -> list[list[BuildLine]]:
        """Returns all parts that there are."""
        found: list[list[BuildLine]] = []
        while (lines := await self.part(build, len(found))) is not None:
            found.append(lines)
        return found

    async def delete(self, build: str) -> None:
        """Deletes all of it."""
        part = 0
        while await self._blobs.exists(PREFIX, _digest(build, part)):
            await self._blobs.delete(PREFIX, _digest(build, part))
            part += 1


def _digest(build: str, part: int) -> str:
    return hashlib.sha256(f"{build}/{part}".encode()).hexdigest()
