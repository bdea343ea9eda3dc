"""Functions, their revisions, and names for these."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from martlet.model.base import Digest, Frozen
from martlet.model.config import FunctionConfig
from martlet.model.names import AliasName, FunctionName


class Revision(Frozen):
    """One immutable code + configuration of a function.

    ``code`` and ``dependencies`` are digests (sha256, hex) of packages in the blob store, and so is ``source``, what
    ``code`` was built of where that is something else; ``commit`` is the one of git that it was made of.
    """

    function: FunctionName
    number: int = Field(ge=1)
    config: FunctionConfig
    source: Digest | None = None
    commit: str | None = None
    code: Digest
    dependencies: Digest | None = None
    created: float

    @property
    def id(self) -> str:
        """``hello@3``."""
        return f"{self.function}@{self.number}"


class Division(Frozen):
    """How ``max_instances`` of a revision are divided: instances that each node may have, by the id of the node.

    ``wanted`` are those that each is to have ready for the calls that are expected, and ``why`` says what that was
    derived from. ``created`` is the revision's: a function that was deleted and made anew begins its numbers anew.
    """

    function: FunctionName
    number: int = Field(ge=1)
    created: float
    shares: dict[str, int]
    wanted: dict[str, int] = Field({})
    why: str = ""


class Draft(Frozen):
    """A function that is named and configured, and has no code yet."""

    name: FunctionName
    config: FunctionConfig
    created: float


class FunctionState(StrEnum):
    """What a function is doing, as its last deploy left it."""

    READY = "ready"
    FAILED = "failed"


class Function(Frozen):
    """A name people invoke, and what it points at. ``latest`` is the revision that serves; ``counter`` the highest
    number ever given, so that a number is never given twice."""

    name: FunctionName
    latest: int = Field(ge=1)
    counter: int = Field(ge=1)
    created: float
    updated: float


class Alias(Frozen):
    """A named pointer at revisions with weights: ``{3: 90, 4: 10}``."""

    function: FunctionName
    name: AliasName
    weights: dict[int, int] = Field(min_length=1, max_length=10)

    @field_validator("weights")
    @classmethod
    def _weights_add_up(cls, value: dict[int, int]) -> dict[int, int]:
        if any(weight < 0 for weight in value.values()) or sum(value.values()) != 100:
            raise ValueError("the weights are percentages: none negative, 100 together")
        return value
