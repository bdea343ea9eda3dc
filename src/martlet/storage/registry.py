"""The typed view of the store: `Registry` reads and writes it, `RegistryView` is a copy that follows it."""

from __future__ import annotations

from collections.abc import Callable

from martlet.errors import Conflict, NotFound
from martlet.model import (
    Alias,
    ApiKey,
    Build,
    Division,
    Draft,
    Drain,
    Function,
    Node,
    Revision,
    Waiting,
)
from martlet.storage.fenced import FencedStore
from martlet.storage.resources import (
    ALIASES,
    BUILDS,
    DIVISIONS,
    DRAFTS,
    DRAINS,
    FUNCTIONS,
    KEYS,
    NODES,
    REVISIONS,
    WAITING,
    Model,
    Resource,
)
from martlet.storage.store import Guard, Lease, RevisionMismatch, Store
from martlet.storage.view import OnChange, RegistryView

__all__ = ["OnChange", "Registry", "RegistryView"]


class Registry:
    """What the store holds, as models.

    Each ``get``, ``read`` and ``delete`` raises `NotFound` where there is no such thing. Each ``put`` and
    ``delete`` returns the store revision it made. `StoreError` passes through.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get_function(self, name: str) -> Function:
        """Returns a function."""
        return (await self._get(FUNCTIONS, name))[0]

    async def read_function(self, name: str) -> tuple[Function, int]:
        """Returns a function and the store revision that wrote it, as ``expect_revision`` wants it."""
        return await self._get(FUNCTIONS, name)

    async def list_functions(self) -> list[Function]:
        """Returns all functions, by name."""
        return await self._list(FUNCTIONS)

    async def put_function(self, function: Function, *, expect_revision: int | None = None) -> int:
        """Writes a function.

        Args:
            function: what it is from now on.
            expect_revision: the store revision it must have been written at last (0: it must be new).

        Raises:
            Conflict: it was written, deleted or made by somebody else meanwhile.
        """
        return await self._put(FUNCTIONS, function, function.name, expect_revision=expect_revision)

    async def delete_function(self, name: str, *, expect_revision: int | None = None) -> int:
        """Deletes a function; its revisions and aliases are the caller's to delete.

        Raises:
            Conflict: it was written by somebody else meanwhile.
        """
        return await self._delete(FUNCTIONS, name, expect_revision=expect_revision)

    async def get_revision(self, function: str, number: int) -> Revision:
        """Returns a revision."""
        return (await self._get(REVISIONS, function, number))[0]

    async def list_revisions(self, function: str) -> list[Revision]:
        """Returns the revisions of a function, oldest first."""
        return await self._list(REVISIONS, function)

    async def put_revision(self, revision: Revision) -> int:
        """Writes a new revision.

        Raises:
            Conflict: its number is taken, perhaps by a deploy that was cut off: revisions never change.
        """
        return await self._put(REVISIONS, revision, revision.function, revision.number, expect_revision=0)

    async def delete_revision(self, function: str, number: int) -> int:
        """Deletes a revision."""
        return await self._delete(REVISIONS, function, number)

    async def get_alias(self, function: str, name: str) -> Alias:
        """Returns an alias of a function."""
        return (await self._get(ALIASES, function, name))[0]

    async def list_aliases(self, function: str) -> list[Alias]:
        """Returns the aliases of a function, by name."""
        return await self._list(ALIASES, function)

    async def put_alias(self, alias: Alias) -> int:
        """Writes an alias."""
        return await self._put(ALIASES, alias, alias.function, alias.name)

    async def delete_alias(self, function: str, name: str) -> int:
        """Deletes an alias of a function."""
        return await self._delete(ALIASES, function, name)

    async def get_draft(self, name: str) -> Draft:
        """Returns a function that has no code yet."""
        return (await self._get(DRAFTS, name))[0]

    async def list_drafts(self) -> list[Draft]:
        """Returns all functions that have no code yet, by name."""
        return await self._list(DRAFTS)

    async def put_draft(self, draft: Draft, *, expect_revision: int | None = None) -> int:
        """Writes a function that has no code yet; ``expect_revision`` as in `put_function`."""
        return await self._put(DRAFTS, draft, draft.name, expect_revision=expect_revision)

    async def delete_draft(self, name: str) -> int:
        """Deletes a function that has no code yet."""
        return await self._delete(DRAFTS, name)

    async def get_key(self, key_id: str) -> ApiKey:
        """Returns a key."""
        return (await self._get(KEYS, key_id))[0]

    async def list_keys(self) -> list[ApiKey]:
        """Returns all keys, by id."""
        return await self._list(KEYS)

    async def put_key(self, key: ApiKey) -> int:
        """Writes a key."""
        return await self._put(KEYS, key, key.id)

    async def delete_key(self, key_id: str) -> int:
        """Deletes a key."""
        return await self._delete(KEYS, key_id)

    async def get_build(self, build_id: str) -> Build:
        """Returns a build."""
        return (await self._get(BUILDS, build_id))[0]

    async def list_builds(self) -> list[Build]:
        """Returns all builds, by id."""
        return await self._list(BUILDS)

    async def put_build(self, build: Build, *, expect_revision: int | None = None) -> int:
        """Writes a build; ``expect_revision`` as in `put_function`."""
        return await self._put(BUILDS, build, build.id, expect_revision=expect_revision)

    async def delete_build(self, build_id: str) -> int:
        """Deletes a build."""
        return await self._delete(BUILDS, build_id)

    async def join(self, ttl: float) -> Lease:
        """Grants the lease under which a node is known, of ``ttl`` seconds."""
        return await self._store.lease(ttl)

    async def put_node(self, node: Node, lease: Lease) -> int:
        """Writes a node, which is forgotten with its lease. Raises `LeaseExpired`."""
        return await self._put(NODES, node, node.id, lease=lease)

    async def put_drain(self, drain: Drain) -> int:
        """Writes that a node is drained."""
        return await self._put(DRAINS, drain, drain.node)

    async def delete_drain(self, node: str) -> int:
        """Lets a node be drained no more."""
        return await self._delete(DRAINS, node)

    async def put_division(self, division: Division) -> int:
        """Writes how the instances of a revision are divided."""
        return await self._put(DIVISIONS, division, division.function, division.number)

    async def delete_division(self, function: str, number: int) -> int:
        """Deletes how the instances of a revision are divided."""
        return await self._delete(DIVISIONS, function, number)

    async def list_waiting(self) -> list[Waiting]:
        """Returns all deploys that have not ended, by the id of their build."""
        return await self._list(WAITING)

    async def read_all_waiting(self) -> list[tuple[Waiting, int]]:
        """Returns all deploys that have not ended, each with the store revision that wrote it."""
        entries, _ = await self._store.list(WAITING.key(""))
        return [(WAITING.read(entry.value), entry.revision) for entry in entries]

    async def read_waiting(self, build_id: str) -> tuple[Waiting, int]:
        """Returns a deploy that has not ended, and the store revision that wrote it."""
        return await self._get(WAITING, build_id)

    async def put_waiting(self, waiting: Waiting, *, expect_revision: int | None = None) -> int:
        """Writes a deploy that has not ended; ``expect_revision`` as in `put_function`."""
        return await self._put(WAITING, waiting, waiting.build, expect_revision=expect_revision)

    async def delete_waiting(self, build_id: str, *, expect_revision: int | None = None) -> int:
        """Deletes a deploy that has ended; ``expect_revision`` as in `delete_function`."""
        return await self._delete(WAITING, build_id, expect_revision=expect_revision)

    def holding(self, build_id: str, revision: Callable[[], int]) -> Registry:
        """Returns the registry by which to write what a deploy does: `GuardLost` once somebody else has written it.

        Args:
            build_id: the deploy, which has not ended.
            revision: the store revision that it was written at by who holds it.
        """
        return Registry(FencedStore(self._store, lambda: Guard(WAITING.key(build_id), revision())))

    async def _get(self, resource: Resource[Model], *path: str | int) -> tuple[Model, int]:
        entry = await self._store.get(resource.key(*path))
        if entry is None:
            raise _missing(resource, *path)
        return resource.read(entry.value), entry.revision

    async def _list(self, resource: Resource[Model], *path: str | int) -> list[Model]:
        entries, _ = await self._store.list(resource.key(*path, ""))
        return [resource.read(entry.value) for entry in entries]

    async def _put(
        self,
        resource: Resource[Model],
        thing: Model,
        *path: str | int,
        expect_revision: int | None = None,
        lease: Lease | None = None,
    ) -> int:
        key, document = resource.key(*path), resource.write(thing)
        try:
            return await self._store.put(key, document, expect_revision=expect_revision, lease=lease)
        except RevisionMismatch as mismatch:
            raise _conflict(mismatch, resource, *path) from None

    async def _delete(
        self, resource: Resource[Model], *path: str | int, expect_revision: int | None = None
    ) -> int:
        try:
            revision = await self._store.delete(resource.key(*path), expect_revision=expect_revision)
        except RevisionMismatch as mismatch:
            raise _conflict(mismatch, resource, *path) from None
        if revision is None:
            raise _missing(resource, *path)
        return revision


def _missing(resource: Resource[Model], *path: str | int) -> NotFound:
    return resource.missing(f"there is no {resource.noun} {_called(path)}")


def _conflict(mismatch: RevisionMismatch, resource: Resource[Model], *path: str | int) -> Conflict:
    if mismatch.expected == 0:
        return Conflict(f"the {resource.noun} {_called(path)} exists already")
    done = "deleted" if mismatch.actual == 0 else "changed"
    return Conflict(
        f"the {resource.noun} {_called(path)} was {done} meanwhile: read it again, then repeat the change"
    )


def _called(path: tuple[str | int, ...]) -> str:
    """Returns ``'hello'``, ``'hello@3'`` or ``'hello@live'``: as people name it."""
    return repr("@".join(map(str, path)))
