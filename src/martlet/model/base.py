"""What all types of the model are made of."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

LATEST = "latest"
MiB = 1024**2
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """A value that never changes and has no members but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, document: bytes | str) -> Self:
        """Returns what a machine has written as JSON. Raises ValueError for anything else.

        What a newer version has written besides is left out: during an upgrade machines of both work together.
        """
        return cls.model_validate_json(document, extra="ignore")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
"""A whole number as JSON has it: ``1.0`` is one, ``"1"`` and ``true`` are none."""
