"""Our keys as etcd has them: below a prefix, which others may have neighbours of.

The key ``PREFIX/`` is the **mark**: it is written along with every change, so that its revision is the store revision
whatever others write into the same etcd. Only the keys that a lease takes with it go without.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from martlet.storage.store import Change, Entry


@dataclass(frozen=True, slots=True)
class Keys:
    """Writes keys below a prefix into requests, and reads them in answers."""

    prefix: str

    @property
    def mark(self) -> str:
        """The mark, for a request."""
        return encoded(f"{self.prefix}/".encode())

    def one(self, key: str) -> str:
        """Returns a key for a request. Raises ValueError unless it begins with a slash and goes on."""
        if not key.startswith("/") or key == "/":
            raise ValueError(f"{key!r} must begin with a slash, and have more than that")
        return encoded(f"{self.prefix}{key}".encode())

    def range(self, prefix: str) -> dict[str, str]:
        """Returns the keys that begin with ``prefix``, without the mark, for a request."""
        start = f"{self.prefix}{prefix or '/'}".encode()
        # No key has the byte 255, so this is behind all that begin so.
        end = start + b"\xff"
        return {"key": encoded(start + b"\0" if prefix in ("", "/") else start), "range_end": encoded(end)}

    def entry(self, found: Mapping[str, Any]) -> Entry:
        """Returns what an answer says of a key."""
        return Entry(self._key(found), b64decode(found.get("value", "")), int(found["mod_revision"]))

    def change(self, event: Mapping[str, Any]) -> Change:
        """Returns what a watch says of a key."""
        found = event["kv"]
        value = None if event.get("type") == "DELETE" else b64decode(found.get("value", ""))
        return Change(self._key(found), value, int(found["mod_revision"]))

    def _key(self, found: Mapping[str, Any]) -> str:
        return b64decode(found["key"]).decode().removeprefix(self.prefix)


def encoded(value: bytes) -> str:
    """Returns bytes as JSON has them."""
    return b64encode(value).decode()
