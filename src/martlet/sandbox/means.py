"""What a host gives for making sandboxes: decided once, by trying (`rehearsal`), and the same for all that is made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from martlet.sandbox.users import IdMap


class Users(StrEnum):
    """Who cells become when they get code.

    OWN: a user id that no other sandbox has, anywhere on the host.
    NESTED: one that no other sandbox has, in a user namespace of its own; to the host they are all the platform.
    SHARED: the platform's user.
    """

    OWN = "own"
    NESTED = "nested"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Means:
    """See the module.

    Attributes:
        confined: whether there are namespaces and a private root.
        users: see `Users`.
        ids: the map of the zygote's user namespace; None where it needs none, because it is root, or may have none.
    """

    confined: bool
    users: Users
    ids: IdMap | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of it."""
        ids = document["ids"]
        return cls(document["confined"], Users(document["users"]), ids and IdMap.from_json(ids))
