"""A watch that goes on at another member when the one it was at is lost, and sees each change once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from martlet.storage.etcd.answers import Code, Refused, Unanswered
from martlet.storage.etcd.client import CALL_SECONDS, PAUSE, READ_SECONDS, Client
from martlet.storage.etcd.keys import Keys
from martlet.storage.store import Change, Compacted, StoreError

QUIET_SECONDS = 3.0
"""After so long without a change the member is asked whether it is well."""


class Watch:
    """See the module and `Store.watch`. etcd's own end of a watch knows nothing of the one before it.

    Args:
        client: of the cluster.
        keys: ours.
        prefix: of the keys that are watched.
        since: the revision after which changes are wanted.
    """

    def __init__(self, client: Client, keys: Keys, prefix: str, since: int) -> None:
        self._client = client
        self._keys = keys
        self._range = keys.range(prefix)
        self._since = since
        self._renewed = False
        self._lost: float | None = None

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yields the changes; see `Store.watch`."""
        while not self._client.closed:
            member = self._client.member
            try:
                async with aclosing(self._from(member)) as changes:
                    async for change in changes:
                        yield change
            except StoreError as error:
                if self._client.closed:
                    return
                await self._recover(member, error)

    async def _from(self, member: str) -> AsyncGenerator[Change, None]:
        """Yields the changes that one member tells of."""
        # From the last revision that was seen, not from the one behind it: only then does etcd tell for certain that
        # something behind it has been compacted.
        first = max(self._since, 1)
        create = {**self._range, "start_revision": first, "fragment": True}
        async with self._client.stream(member, "watch", {"create_request": create}) as messages:
            events: list[dict[str, Any]] = []
            while True:
                news = await messages.next(QUIET_SECONDS)
                if not news:
                    await self._client.ask(member, "maintenance/status", {}, READ_SECONDS)
                for message in news:
                    self._check(message)
                    events += message.get("events", ())
                    if message.get("fragment"):
                        continue  # the rest of a revision may be in the next one
                    changes = [self._keys.change(event) for event in events]
                    events = []
                    fresh = [change for change in changes if change.revision > self._since]
                    if fresh:
                        self._since = fresh[-1].revision
                    for change in fresh:
                        yield change

    def _check(self, message: dict[str, Any]) -> None:
        """Raises what a message says that is not of changes."""
        if not message.get("canceled"):
            self._lost, self._renewed = None, False
            return
        if "compact_revision" in message:
            raise Compacted(self._since, int(message["compact_revision"]) + 1)
        reason = message.get("cancel_reason", "etcd has ended the watch")
        denied = "permission denied" in reason
        raise Refused(Code.PERMISSION_DENIED if denied else Code.UNAVAILABLE, reason)

    async def _recover(self, member: str, error: StoreError) -> None:
        """Returns when it is worth another try. Raises ``error`` where it is not, or has not been for long."""
        if isinstance(error, Refused) and (error.stale_token or error.code == Code.PERMISSION_DENIED):
            # A watch with a token that has run out is said to lack the permission.
            if self._renewed:
                raise error
            self._renewed = True
            self._client.forget_token()
            return
        if not isinstance(error, Unanswered) and not (isinstance(error, Refused) and error.later):
            raise error
        self._client.leave(member)
        now = asyncio.get_running_loop().time()
        if self._lost is None:
            self._lost = now
        elif now - self._lost > CALL_SECONDS:
            raise StoreError(f"etcd is out of reach: {error}") from error
        await asyncio.sleep(PAUSE)
