"""Keys, and what they let people do."""

from __future__ import annotations

from enum import StrEnum

from martlet.model.base import Digest, Frozen
from martlet.model.names import FunctionName
from martlet.units import NO_LIMIT, Rate


class Scope(StrEnum):
    """What a key may do. ``admin`` does not imply the others; keys list what they have."""

    INVOKE = "invoke"
    MANAGE = "manage"
    ADMIN = "admin"


class ApiKey(Frozen):
    """A key as it is stored: never itself, only the sha256 of its random text.

    ``functions`` limits it to these functions (None: all). ``trusted`` keys skip the limit per client address.
    ``hashes`` holds the current secret and, while a rotation overlaps, the one before with its own expiry.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    functions: tuple[FunctionName, ...] | None = None
    hashes: dict[Digest, float | None]
    rate_limit: Rate = NO_LIMIT
    trusted: bool = False
    created: float
    expires: float | None = None
