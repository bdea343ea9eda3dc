"""What functions point at: the few writes that a change consists of, and the news of them to the lanes.

The writes are in an order that can be cut off anywhere: what a function points at is there before it does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import time
from weakref import WeakValueDictionary

from martlet.control.lanes import Lanes
from martlet.errors import FunctionNotFound, Invalid, NotFound
from martlet.model import LATEST, Alias, Function, Revision
from martlet.storage.registry import Registry, RegistryView


@dataclass(frozen=True, slots=True)
class Current:
    """A function as it serves now, and the store revision that wrote it."""

    function: Function
    written: int
    revision: Revision


class Publishing:
    """See the module. Whoever changes a function holds its `lock` from the first look to the last write."""

    def __init__(self, registry: Registry, view: RegistryView, lanes: Lanes) -> None:
        self._registry = registry
        self._view = view
        self._lanes = lanes
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """Returns the lock of a function."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def current(self, name: str) -> Current | None:
        """Returns the function as it serves now, or None where there is none."""
        try:
            return await self.serving(name)
        except FunctionNotFound:
            return None

    async def serving(self, name: str) -> Current:
        """Like `current`. Raises `FunctionNotFound` where there is none."""
        function, written = await self._registry.read_function(name)
        return Current(function, written, await self._registry.get_revision(name, function.latest))

    async def revision(self, name: str, number: int) -> Revision:
        """Returns a revision of a function. Raises `FunctionNotFound`."""
        return await self._registry.get_revision(name, number)

    async def reserve(
        self, name: str, current: Current | None, registry: Registry
    ) -> tuple[int, Current | None]:
        """Takes the next number for a revision, which nobody is given again; ``registry`` is that of the deploy.

        Returns:
            The number, and ``current`` as it is after that.
        """
        if current is None:
            for left in await self._registry.list_revisions(name):  # by a deploy that was cut off
                await registry.delete_revision(name, left.number)
            return 1, None
        function = current.function.model_copy(update={"counter": current.function.counter + 1})
        written = await registry.put_function(function, expect_revision=current.written)
        return function.counter, Current(function, written, current.revision)

    async def publish(self, revision: Revision, current: Current | None, registry: Registry) -> None:
        """Writes a revision whose number is reserved by the same deploy, and lets the function point at it."""
        await registry.put_revision(revision)
        if current is not None:
            await self.point(current, revision.number, registry)
            return
        function = Function(
            name=revision.function,
            latest=revision.number,
            counter=revision.number,
            created=revision.created,
            updated=revision.created,
        )
        await self.announce(await registry.put_function(function, expect_revision=0))

    async def point(self, current: Current, number: int, registry: Registry | None = None) -> None:
        """Makes another revision the one that serves; ``registry`` is that of the deploy, if it is one."""
        registry = registry or self._registry
        function = current.function.model_copy(update={"latest": number, "updated": time()})
        await self.announce(await registry.put_function(function, expect_revision=current.written))

    async def withdraw(self, name: str) -> None:
        """Deletes a function. Raises `FunctionNotFound`."""
        written = await self._registry.delete_function(name)
        for alias in await self._registry.list_aliases(name):
            written = await self._registry.delete_alias(name, alias.name)
        for revision in await self._registry.list_revisions(name):
            written = await self._registry.delete_revision(name, revision.number)
        await self.announce(written)
        await self._lanes.forget(name)

    async def put_alias(self, alias: Alias) -> None:
        """Makes an alias, or points it elsewhere.

        Raises:
            FunctionNotFound: there is no such function.
            Invalid: the name is taken by the platform, or there is no revision of a number.
        """
        if alias.name == LATEST:
            raise Invalid(f"{LATEST!r} always names the newest deploy: choose another name", field="alias")
        await self._registry.get_function(alias.function)
        known = {revision.number for revision in await self._registry.list_revisions(alias.function)}
        for number in alias.weights:
            if number not in known:
                raise Invalid(
                    f"weights.{number}: {alias.function!r} has no revision {number}; "
                    f"it has {', '.join(map(str, sorted(known)))}",
                    field=f"weights.{number}",
                )
        await self.announce(await self._registry.put_alias(alias))

    async def delete_alias(self, name: str, alias: str) -> None:
        """Deletes an alias. Raises `FunctionNotFound`."""
        await self.announce(await self._registry.delete_alias(name, alias))

    async def drop(self, revisions: list[Revision]) -> None:
        """Deletes revisions that nothing points at."""
        for revision in revisions:
            try:
                await self._registry.delete_revision(revision.function, revision.number)
            except NotFound:
                continue

    async def announce(self, written: int) -> None:
        """Returns once control itself and every living lane have seen the store as it was written."""
        await asyncio.gather(self._view.catch_up(written), self._lanes.sync(written))
