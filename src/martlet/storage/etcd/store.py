"""The store of many machines: an etcd cluster."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from martlet.storage.etcd.answers import Code, Refused
from martlet.storage.etcd.client import Client
from martlet.storage.etcd.keys import Keys, encoded
from martlet.storage.etcd.watch import Watch
from martlet.storage.store import Change, Entry, Guard, GuardLost, Lease, LeaseExpired, RevisionMismatch
from martlet.store_address import EtcdAddress

PAGE = 1000
"""How many entries are asked for at once."""

Entries = list[Entry]


class EtcdStore:
    """A `Store` in an etcd cluster. Make one with `open`; it belongs to the event loop that opened it."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    @classmethod
    async def open(cls, address: EtcdAddress) -> EtcdStore:
        """Connects to a cluster.

        Raises:
            StoreError: it is out of reach, refuses the password, or a file of the address cannot be used.
        """
        store = cls(Client(address), Keys(address.prefix))
        try:
            await store.revision()
        except BaseException:
            await store.close()
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        answer = await self._read("kv/range", {"key": self._keys.one(key)})
        return next(map(self._keys.entry, answer.get("kvs", ())), None)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See `Store.list`."""
        while True:
            try:
                return await self._pages(prefix)
            except Refused as error:
                if error.code != Code.OUT_OF_RANGE:
                    raise  # otherwise it was compacted between two pages

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect_revision: int | None = None,
        lease: Lease | None = None,
        guard: Guard | None = None,
    ) -> int:
        """See `Store.put`."""
        put = {"key": self._keys.one(key), "value": encoded(value)}
        if lease is not None:
            put["lease"] = lease.id
        compare = [] if expect_revision is None else [{"target": "MOD", "mod_revision": expect_revision}]
        try:
            done, revision = await self._write(key, {"request_put": put}, compare, guard)
        except Refused as error:
            if lease is None or error.code != Code.NOT_FOUND:
                raise
            raise _expired(lease.id) from error
        if not done:
            raise RevisionMismatch(key, expect_revision or 0, revision)
        return revision

    async def delete(
        self, key: str, *, expect_revision: int | None = None, guard: Guard | None = None
    ) -> int | None:
        """See `Store.delete`."""
        compare: list[dict[str, Any]] = [{"target": "VERSION", "result": "GREATER", "version": 0}]
        if expect_revision is not None:
            compare.append({"target": "MOD", "mod_revision": expect_revision})
        request = {"request_delete_range": {"key": self._keys.one(key)}}
        done, revision = await self._write(key, request, compare, guard)
        if done:
            return revision
        if expect_revision not in (None, revision):
            raise RevisionMismatch(key, expect_revision or 0, revision)
        return None

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """See `Store.watch`."""
        return Watch(self._client, self._keys, prefix, since).changes()

    async def lease(self, ttl: float) -> EtcdLease:
        """See `Store.lease`; etcd counts in whole seconds and has a least, so it may live longer than asked."""
        answer = await self._read("lease/grant", {"TTL": math.ceil(ttl)})
        return EtcdLease(self, answer["ID"], float(answer["TTL"]))

    async def revision(self) -> int:
        """See `Store.revision`."""
        answer = await self._read("kv/range", {"key": self._keys.mark})
        return int(answer["kvs"][0]["mod_revision"]) if "kvs" in answer else _revision(answer)

    async def close(self) -> None:
        """See `Store.close`."""
        await self._client.close()

    async def _pages(self, prefix: str) -> tuple[Entries, int]:
        request: dict[str, Any] = {**self._keys.range(prefix), "limit": PAGE}
        entries: Entries = []
        while True:
            answer = await self._read("kv/range", request)
            found = answer.get("kvs", ())
            entries += map(self._keys.entry, found)
            revision = request.setdefault("revision", _revision(answer))
            if not answer.get("more"):
                return entries, revision
            request["key"] = encoded(b64decode(found[-1]["key"]) + b"\0")

    async def _read(self, method: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for what may be asked twice."""
        return await self._client.call(method, document, repeatable=True)

    async def _write(
        self, key: str, request: Mapping[str, Any], compare: Sequence[Mapping[str, Any]], guard: Guard | None
    ) -> tuple[bool, int]:
        """Does what is asked, and marks it, if all is as compared.

        Returns:
            Whether it was done, and the new store revision, or else that of the key (0: there is no such key).

        Raises:
            GuardLost: it was not done for that.
        """
        ours = self._keys.one(key)
        compared: list[Mapping[str, Any]] = [{"key": ours, **each} for each in compare]
        looked_at = [{"request_range": {"key": ours, "keys_only": True}}]
        if guard is not None:
            watched = self._keys.one(guard.key)
            compared.append({"key": watched, "target": "MOD", "mod_revision": guard.revision})
            looked_at.append({"request_range": {"key": watched, "keys_only": True}})
        document = {
            "compare": compared,
            "success": [request, {"request_put": {"key": self._keys.mark}}],
            "failure": looked_at,
        }
        answer = await self._client.call("kv/txn", document, repeatable=False)
        if answer.get("succeeded"):
            return True, _revision(answer)
        found = [_found(each) for each in answer["responses"]]
        if guard is not None and found[1] != guard.revision:
            raise GuardLost(guard)
        return False, found[0]


@dataclass(frozen=True, slots=True)
class EtcdLease:
    """A `Lease` of an `EtcdStore`."""

    _store: EtcdStore
    id: str
    ttl: float

    async def keep_alive(self) -> None:
        """See `Lease.keep_alive`."""
        answer = await self._store._read("lease/keepalive", {"ID": self.id})
        if "TTL" not in answer["result"]:
            raise _expired(self.id)

    async def revoke(self) -> None:
        """See `Lease.revoke`."""
        try:
            await self._store._read("lease/revoke", {"ID": self.id})
        except Refused as error:
            if error.code != Code.NOT_FOUND:
                raise


def _found(answer: Mapping[str, Any]) -> int:
    """Returns the revision of the key that was asked for in a transaction; 0: there is no such key."""
    found = answer["response_range"].get("kvs", ())
    return int(found[0]["mod_revision"]) if found else 0


def _expired(lease: str) -> LeaseExpired:
    return LeaseExpired(f"the lease {lease} has run out: ask for another and write its keys again")


def _revision(answer: Mapping[str, Any]) -> int:
    return int(answer["header"]["revision"])
