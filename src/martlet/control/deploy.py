"""A deploy as somebody asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from martlet.builder.source import Git, Source
from martlet.control.publishing import Current
from martlet.model import FunctionConfig, FunctionName


class Expect(StrEnum):
    """What a deploy assumes of its function."""

    ABSENT = "absent"
    PRESENT = "present"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Deploy:
    """What somebody asks for.

    Attributes:
        name: the function.
        source: its code; None leaves it as it is.
        config: keys of its configuration.
        expect: whether the function must exist.
        replace: the keys that ``config`` does not have get their defaults, rather than stay as they are.
        upgrade: look for newer versions of the dependencies.
    """

    name: FunctionName
    source: Source | Git | None
    config: Mapping[str, Any] = field(default_factory=dict)
    expect: Expect = Expect.EITHER
    replace: bool = False
    upgrade: bool = False

    def names_no_runtime(self, current: Current | None) -> bool:
        """Whether the code is to say what it is written in."""
        named = (self.config.get(key) for key in ("runtime", "image"))
        return self.config_before(current) is None and not any(named)

    def config_before(self, current: Current | None) -> FunctionConfig | None:
        """Returns the configuration that ``config`` changes; None: the defaults."""
        return None if current is None or self.replace else current.revision.config


def discard(deploy: Deploy) -> None:
    """Deletes what was uploaded for a deploy that will not begin, or has ended."""
    if deploy.source is not None:
        deploy.source.discard()
