"""The sample configuration: every setting with its description, made from the models."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from martlet.model import Frozen
from martlet.settings import DeclaredFunction, SystemSettings

WIDTH = 100

HEAD = """\
# The configuration of Martlet: `martlet serve -c THIS_FILE`.
#
# Every setting is here, commented out and with its default: take the # away from those to change.
# `martlet config check THIS_FILE` says whether all is well.
"""


def sample() -> str:
    """Returns a configuration file that changes nothing yet; where the ``#`` are removed it says the same."""
    lines = [HEAD, "system:"]
    lines += _settings(SystemSettings(), depth=1)
    lines += ["", "# Functions that are deployed when the platform starts.", "functions:", "  #hello:"]
    lines += _settings(DeclaredFunction.model_validate({}), depth=2)
    return "\n".join(lines) + "\n"


def _settings(model: Frozen, depth: int) -> Iterator[str]:
    defaults = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        yield from textwrap.wrap(
            field.description or "", WIDTH, initial_indent="  # ", subsequent_indent="  # "
        )
        yield f"  #{'  ' * (depth - 1)}{name}: {_yaml(defaults[name])}"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
