"""The deploys that have been accepted and have not ended: kept in the store, so that they outlive this process."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from time import monotonic
from typing import Literal

from martlet.builder.hold import Hold
from martlet.builder.source import Archive, Git, Inline, Local, Source
from martlet.control.deploy import Deploy, Expect
from martlet.errors import Conflict, NotFound
from martlet.model import Waiting
from martlet.storage.blobs import BlobError, Blobs
from martlet.storage.registry import Registry

PREFIX = "uploads"
"""Where what was sent lies in the blobs."""
GRACE = 600.0
"""Seconds that an upload stays which seems to be of no deploy: another machine may be about to queue that."""


class Queue:
    """See the module.

    Args:
        registry: where deploys are kept.
        blobs: where what was sent with them is kept.
        node: the id of this node.
        shared: whether other machines put deploys into it, too.
    """

    def __init__(self, registry: Registry, blobs: Blobs, node: str, shared: bool = True) -> None:
        self._registry = registry
        self._blobs = blobs
        self._node = node
        self._grace = GRACE if shared else 0.0
        self._kept: set[str] = set()  # digests of uploads that this life has begun to keep
        self._unneeded: dict[str, float] = {}  # since when uploads have seemed to be, by digest

    async def put(self, build: str, deploy: Deploy, started: float) -> Hold:
        """Keeps a deploy that has been accepted, and returns this machine's hold on it.

        Args:
            build: the id of its build.
            deploy: what to do.
            started: when, in seconds since the epoch.

        Raises:
            StoreError, BlobError: it cannot be kept.
        """
        waiting = await self._keep(build, deploy, started)
        waiting = waiting.model_copy(update={"node": self._node, "attempts": 1})
        return Hold(self._registry, waiting, await self._registry.put_waiting(waiting))

    async def leave(self, build: str, deploy: Deploy, started: float, runtime: str) -> None:
        """Like `put`, for a machine to take it up that can build a runtime (empty: it is not known yet)."""
        waiting = await self._keep(build, deploy, started)
        await self._registry.put_waiting(waiting.model_copy(update={"runtime": runtime}))
        self._kept.discard(_digest(build))

    async def _keep(self, build: str, deploy: Deploy, started: float) -> Waiting:
        kind, file = _kind(deploy.source), ""
        self._kept.add(_digest(build))  # from now on, or it might be swept before it is known to be needed
        if isinstance(deploy.source, Inline):
            await self._blobs.put(PREFIX, _digest(build), deploy.source.code.encode("utf-8", "surrogatepass"))
            file = deploy.source.file
        elif isinstance(deploy.source, Archive):
            await self._blobs.put(PREFIX, _digest(build), deploy.source.path)
        return Waiting(
            build=build,
            function=deploy.name,
            kind=kind,
            file=file,
            git=deploy.source.source if isinstance(deploy.source, Git) else None,
            config=dict(deploy.config),
            expect=deploy.expect,
            replace=deploy.replace,
            upgrade=deploy.upgrade,
            attempts=0,
            started=started,
        )

    async def drop(self, hold: Hold) -> None:
        """Forgets a deploy that has ended here; one that somebody else has taken up is left to them."""
        if await hold.drop():
            self._kept.discard(_digest(hold.build))
            await self._blobs.delete(PREFIX, _digest(hold.build))

    async def withdraw(self, waiting: Waiting, written: int) -> None:
        """Likewise, of one that nobody has taken up. Raises `Conflict`: somebody has, or it was not as ``written``."""
        with suppress(NotFound):
            await self._registry.delete_waiting(waiting.build, expect_revision=written)
        with suppress(BlobError):  # then it is swept later
            await self._blobs.delete(PREFIX, _digest(waiting.build))

    async def waiting(self) -> list[Waiting]:
        """Returns the deploys that have not ended, of every node, the oldest first."""
        return sorted(await self._registry.list_waiting(), key=lambda each: each.started)

    async def written(self) -> list[tuple[Waiting, int]]:
        """Returns the same, each with the store revision that wrote it."""
        return sorted(await self._registry.read_all_waiting(), key=lambda each: each[0].started)

    def is_own(self, waiting: Waiting) -> bool:
        """Whether a deploy is one of this node, in this life or an earlier one."""
        return waiting.node == self._node

    async def take(self, waiting: Waiting, written: int) -> Hold | None:
        """Makes a deploy one of this node, and counts the attempt; None where another was quicker.

        Args:
            waiting: as the queue has it.
            written: the store revision that wrote it.
        """
        taken = waiting.model_copy(update={"node": self._node, "attempts": waiting.attempts + 1})
        try:
            written = await self._registry.put_waiting(taken, expect_revision=written)
        except Conflict:
            return None
        return Hold(self._registry, taken, written)

    async def sweep(self) -> None:
        """Removes uploads that belong to no deploy any more. Raises StoreError, BlobError."""
        found = set(await self._blobs.list(PREFIX))
        needed = {_digest(each.build) for each in await self._registry.list_waiting()}
        now = monotonic()
        self._unneeded = {digest: self._unneeded.get(digest, now) for digest in found - needed - self._kept}
        for digest, since in self._unneeded.items():
            if now - since >= self._grace:
                await self._blobs.delete(PREFIX, digest)

    async def deploy(self, waiting: Waiting, archive: Archive) -> Deploy:
        """Returns a deploy anew.

        Args:
            waiting: as it is kept.
            archive: the file that an upload is written to.
        """
        return Deploy(
            name=waiting.function,
            source=await self._source(waiting, archive),
            config=waiting.config,
            # What it was to make may be there already.
            expect=Expect.EITHER
            if waiting.attempts and waiting.expect == Expect.ABSENT
            else Expect(waiting.expect),
            replace=waiting.replace,
            upgrade=waiting.upgrade,
        )

    async def _source(self, waiting: Waiting, archive: Archive) -> Source | Git | None:
        if waiting.git is not None:
            return Git(waiting.git)
        if waiting.kind == "inline":
            text = await self._blobs.get(PREFIX, _digest(waiting.build))
            return Inline(text.decode("utf-8", "surrogatepass"), waiting.file)
        if waiting.kind == "archive":
            await self._blobs.fetch(PREFIX, _digest(waiting.build), archive.path)
            return archive
        return None


def _kind(source: Source | Git | None) -> Literal["nothing", "inline", "archive", "git"]:
    assert not isinstance(source, Local), (
        "what the configuration file declares is deployed at each start anyway"
    )
    if source is None:
        return "nothing"
    if isinstance(source, Git):
        return "git"
    return "inline" if isinstance(source, Inline) else "archive"


def _digest(build: str) -> str:
    return hashlib.sha256(build.encode()).hexdigest()
