"""What has been built of what: so that the same is not built again."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from martlet.builder.packages import Claim

NOTHING = ""
"""Stands for the package that is not there, because none is needed."""


class Records:
    """Names of packages, each under a key made of all that decides what the package is.

    Args:
        folder: where they lie, one small file each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def key(self, *parts: str) -> str:
        """Returns the key of something that all of these decide, and nothing else."""
        return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()

    async def find(self, key: str, claim: Claim) -> str | None:
        """Returns the digest that is recorded (`NOTHING` for none) and claims the package; None where there is none."""
        try:
            digest = await asyncio.to_thread((self._folder / key).read_text)
        except FileNotFoundError:
            return None
        return digest if digest == NOTHING or await claim.has(digest) else None

    async def write(self, keys: Iterable[str], digest: str) -> None:
        """Records a package under some keys."""
        await asyncio.to_thread(self._write, list(keys), digest)

    def _write(self, keys: list[str], digest: str) -> None:
        for key in keys:
            part = self._folder / f"{key}.{secrets.token_hex(4)}"
            part.write_text(digest)
            part.rename(self._folder / key)
