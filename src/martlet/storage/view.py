"""A copy in memory of what lanes need of the store, kept fresh by a watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from math import inf
from typing import Any

import structlog

from martlet.errors import Invalid, Unavailable
from martlet.model import Alias, ApiKey, Division, Drain, Function, Node, Revision
from martlet.storage.resources import ALIASES, DIVISIONS, DRAINS, FUNCTIONS, KEYS, NODES, REVISIONS, Resource
from martlet.storage.store import Change, Compacted, Store, StoreError

log = structlog.get_logger()

RETRY_SECONDS = 1.0
"""How long to wait before a store that was out of reach is followed again."""

OnChange = Callable[[str, str], None]
"""Called with ``function``, ``revision`` or ``alias`` and a function's name, or with ``key`` and its id."""

Thing = Function | Revision | Alias | ApiKey | Node | Drain | Division

_RESOURCES: dict[str, Resource[Any]] = {
    resource.folder: resource for resource in (FUNCTIONS, REVISIONS, ALIASES, KEYS, NODES, DRAINS, DIVISIONS)
}


class RegistryView:
    """Functions, revisions, aliases, keys, nodes and divisions as plain dicts: read them, do not write them.

    Attributes:
        functions: by name.
        revisions: by function and number.
        aliases: by function, then by name; a function without any is not in it.
        keys: by the sha256 (32 bytes) of each of their secrets.
        nodes: by id; those whose lease has not run out.
        drains: by the id of the node, which may be away.
        divisions: by function and number.
        divided: the store revision of each division, likewise.
        decided: the store revision of the last change of drains and divisions.
        revision: the store revision up to which every change is applied.
        on_change: called after each change, but for those of nodes: they come every few seconds, and no answer that is
            remembered depends on them.
        on_nodes: called after each change of nodes, drains and divisions.
    """

    def __init__(self, store: Store) -> None:
        self.functions: dict[str, Function] = {}
        self.revisions: dict[tuple[str, int], Revision] = {}
        self.aliases: dict[str, dict[str, Alias]] = {}
        self.keys: dict[bytes, ApiKey] = {}
        self.nodes: dict[str, Node] = {}
        self.drains: dict[str, Drain] = {}
        self.divisions: dict[tuple[str, int], Division] = {}
        self.divided: dict[tuple[str, int], int] = {}
        self.decided = 0
        self.revision = 0
        self.on_change: list[OnChange] = []
        self.on_nodes: list[Callable[[], None]] = []
        self._store = store
        self._held: dict[str, Thing] = {}
        self._following: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def withdrawing(self) -> set[str]:
        """The ids of the nodes that give their work to others: those that are drained, and those that stop."""
        return {*self.drains, *(node.id for node in self.nodes.values() if node.stopping)}

    async def start(self) -> None:
        """Reads the store once, then follows it until `close`. Raises `StoreError`."""
        await self._read_all()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stops following; the store is the caller's to close."""
        tasks = [task for task in (self._following, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def catch_up(self, revision: int) -> None:
        """Returns once every change up to the store revision is applied; the store is read at once for it.

        Raises:
            Invalid: the store itself has not come that far.
            StoreError: the store is out of reach.
        """
        if self.revision < revision:
            reached = await self._store.revision()
            if reached < revision:
                raise Invalid(
                    f"revision: the store is at {reached}, {revision} is yet to come", field="revision"
                )
            await self._read_until(revision)

    async def lookup_function(self, name: str) -> Function | None:
        """Returns the function after a look into the store: for a name, number or alias that memory lacks.

        However many ask at once, the store is asked once.

        Raises:
            Unavailable: the store is out of reach.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)
        return self.functions.get(name)

    async def _refresh(self) -> None:
        try:
            await self.catch_up(await self._store.revision())
        except StoreError as error:
            raise Unavailable("the names of functions cannot be looked up right now") from error

    async def _follow(self) -> None:
        while True:
            try:
                await self._read_until(inf)
            except StoreError as error:
                log.warning("store_not_followed", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _read_until(self, revision: float) -> None:
        """Applies changes as they come, up to the store revision or the end of the store."""
        while self.revision < revision:
            try:
                # All keys are watched, so that each store revision is seen: `catch_up` waits for a number.
                async with aclosing(self._store.watch("/", self.revision)) as changes:
                    async for change in changes:
                        if change.revision > self.revision:
                            self._apply(change)
                            self.revision = change.revision
                        if self.revision >= revision:
                            return
                return
            except Compacted:
                await self._read_all()

    async def _read_all(self) -> None:
        """Applies the difference between memory and the store as it is now."""
        entries, revision = await self._store.list("/")
        if revision < self.revision:
            return  # somebody else has read on meanwhile
        for key in self._held.keys() - {entry.key for entry in entries}:
            self._apply(Change(key, None, revision))
        for entry in entries:
            if entry.revision > self.revision:
                self._apply(Change(entry.key, entry.value, entry.revision))
        self.revision = revision

    def _apply(self, change: Change) -> None:
        """Replaces what the key held; it does not wait, so nobody sees half of it."""
        resource = _RESOURCES.get(change.key.split("/", 2)[1])
        if resource is None:
            return
        old = self._held.pop(change.key, None)
        if old is not None:
            self._remove(old)
        new = None
        if change.value is not None:
            try:
                new = resource.read(change.value)
            except ValueError as error:
                log.error("entry_not_understood", key=change.key, error=str(error))
            else:
                self._held[change.key] = new
                self._add(new, change.revision)
        changed = old if new is None else new
        if isinstance(changed, Drain | Division):
            self.decided = change.revision
        if isinstance(changed, Node | Drain | Division):
            self._tell_of_nodes(change.key)
        elif changed is not None:
            self._tell(resource.noun, _name(changed))

    def _add(self, thing: Thing, revision: int) -> None:
        match thing:
            case Function():
                self.functions[thing.name] = thing
            case Revision():
                self.revisions[thing.function, thing.number] = thing
            case Alias():
                self.aliases.setdefault(thing.function, {})[thing.name] = thing
            case ApiKey():
                self.keys.update((bytes.fromhex(digest), thing) for digest in thing.hashes)
            case Node():
                self.nodes[thing.id] = thing
            case Drain():
                self.drains[thing.node] = thing
            case Division():
                self.divisions[thing.function, thing.number] = thing
                self.divided[thing.function, thing.number] = revision

    def _remove(self, thing: Thing) -> None:
        match thing:
            case Function():
                del self.functions[thing.name]
            case Revision():
                del self.revisions[thing.function, thing.number]
            case Alias():
                del self.aliases[thing.function][thing.name]
                if not self.aliases[thing.function]:
                    del self.aliases[thing.function]
            case ApiKey():
                for digest in map(bytes.fromhex, thing.hashes):
                    if self.keys[digest] is thing:
                        del self.keys[digest]
            case Node():
                del self.nodes[thing.id]
            case Drain():
                del self.drains[thing.node]
            case Division():
                del self.divisions[thing.function, thing.number]
                del self.divided[thing.function, thing.number]

    def _tell(self, noun: str, name: str) -> None:
        for callback in self.on_change:
            try:
                callback(noun, name)
            except Exception:
                log.exception("change_not_followed", kind=noun, name=name)

    def _tell_of_nodes(self, key: str) -> None:
        for callback in self.on_nodes:
            try:
                callback()
            except Exception:
                log.exception("change_not_followed", key=key)


def _name(thing: Function | Revision | Alias | ApiKey) -> str:
    match thing:
        case Function():
            return thing.name
        case ApiKey():
            return thing.id
        case Revision() | Alias():
            return thing.function
