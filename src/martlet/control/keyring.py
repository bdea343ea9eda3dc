"""Keys: made, rotated, revoked. A secret is shown once and stored as its sha256 only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import time

from pydantic import Field

from martlet.control.publishing import Publishing
from martlet.errors import Conflict
from martlet.model import ApiKey, Frozen, FunctionName, Scope
from martlet.settings import Settings
from martlet.storage.registry import Registry
from martlet.units import NO_LIMIT, Rate

SECRET_PREFIX = "mk_"  # noqa: S105 - how secrets begin, so that people and scanners know one when they see it
ADMIN_KEY_FILE = "admin.key"
DEVELOPMENT_KEYS = {
    "demo-key": frozenset({Scope.INVOKE, Scope.MANAGE}),
    "admin-key": frozenset(Scope),
}
"""The well-known secrets of development mode, each also the id of its key."""


class KeyRequest(Frozen):
    """What a new key is to be."""

    name: str = Field(min_length=1, max_length=100, description="What it is for, in words.")
    scopes: frozenset[Scope] = Field(
        min_length=1, description="What it may do.", json_schema_extra={"uniqueItems": False}
    )
    functions: tuple[FunctionName, ...] | None = Field(
        None, min_length=1, max_length=1000, description="The only functions it may touch; null is all."
    )
    rate_limit: Rate = Field(
        NO_LIMIT, description="How many requests it may make.", json_schema_extra={"default": "off"}
    )
    trusted: bool = Field(False, strict=True, description="Whether it skips the limit per client address.")
    expires: float | None = Field(
        None,
        strict=True,
        gt=0,
        lt=1e11,
        description="When it stops working, in seconds since the epoch; null is never.",
    )


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, and its secret while it may be shown."""

    key: ApiKey
    secret: str


class Keyring:
    """See the module."""

    def __init__(self, registry: Registry, publishing: Publishing) -> None:
        self._registry = registry
        self._publishing = publishing

    async def open(self, settings: Settings) -> None:
        """Makes the keys that must be there.

        These are the well-known ones in development mode, and only then; otherwise one that may do everything,
        whose secret is written to a file that only the platform's user can read.
        """
        keys = {key.id: key for key in await self._registry.list_keys()}
        for name, scopes in DEVELOPMENT_KEYS.items():
            key = _development_key(name, scopes)
            if settings.system.development and keys.get(name) != key:
                await self._registry.put_key(key)
            elif not settings.system.development and name in keys:
                await self._registry.delete_key(name)
        lasting = [key for key in keys.values() if key.id not in DEVELOPMENT_KEYS]
        if not settings.system.development and not _administrators(lasting):
            new = _new_key(KeyRequest(name="administrator", scopes=frozenset(Scope), trusted=True))
            _write_secret(settings.system.function_storage_path / ADMIN_KEY_FILE, new.secret)
            await self._registry.put_key(new.key)

    async def list(self) -> list[ApiKey]:
        """Returns all keys, the oldest first."""
        return sorted(await self._registry.list_keys(), key=lambda key: key.created)

    async def create(self, request: KeyRequest) -> NewKey:
        """Makes a key."""
        new = _new_key(request)
        await self._put(new.key)
        return new

    async def rotate(self, key_id: str, overlap: float) -> NewKey:
        """Gives a key another secret; the old one is accepted ``overlap`` more seconds. Raises `NotFound`."""
        key = await self._registry.get_key(key_id)
        secret = _new_secret()
        now = time()
        hashes: dict[str, float | None] = {_hash(secret): None}
        if overlap > 0:
            living = {digest: end for digest, end in key.hashes.items() if end is None or end > now}
            hashes |= {digest: min(end or now + overlap, now + overlap) for digest, end in living.items()}
        key = key.model_copy(update={"hashes": hashes})
        await self._put(key)
        return NewKey(key, secret)

    async def revoke(self, key_id: str) -> None:
        """Deletes a key.

        Raises:
            NotFound: there is no such key.
            Conflict: nobody could make keys any more.
        """
        key = await self._registry.get_key(key_id)
        others = [other for other in await self._registry.list_keys() if other.id != key_id]
        if _administrators([key]) and not _administrators(others):
            raise Conflict("this is the last key with the scope admin: make another one first")
        await self._publishing.announce(await self._registry.delete_key(key_id))

    async def _put(self, key: ApiKey) -> None:
        await self._publishing.announce(await self._registry.put_key(key))


def _administrators(keys: Iterable[ApiKey]) -> list[ApiKey]:
    """Returns those that may manage keys, now and for ever."""
    return [
        key for key in keys if Scope.ADMIN in key.scopes and key.functions is None and key.expires is None
    ]


def _new_key(request: KeyRequest) -> NewKey:
    secret = _new_secret()
    key = ApiKey(
        id=f"k{secrets.token_hex(6)}",
        name=request.name,
        scopes=request.scopes,
        functions=request.functions,
        hashes={_hash(secret): None},
        rate_limit=request.rate_limit,
        trusted=request.trusted,
        created=time(),
        expires=request.expires,
    )
    return NewKey(key, secret)


def _development_key(name: str, scopes: frozenset[Scope]) -> ApiKey:
    return ApiKey(id=name, name=name, scopes=scopes, hashes={_hash(name): None}, trusted=True, created=0)


def _new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _write_secret(path: Path, secret: str) -> None:
    """Replaces the file as a whole, so that it is never half written nor readable for others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
