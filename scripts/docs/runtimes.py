"""The runtimes that come with Martlet, and the reference of ``runtime.toml``."""

from __future__ import annotations

from typing import Any

from martlet.runtimes.description import (
    Also,
    Build,
    Dependencies,
    Description,
    Program,
    Start,
    Toolchain,
    read_description,
)
from martlet.runtimes.runtime import SHIPPED
from scripts.docs import markdown
from scripts.docs.markdown import code, described

SECTIONS: dict[str, Any] = {
    "": Description,
    "[toolchain]": Toolchain,
    "[[toolchain.also]]": Also,
    "[dependencies]": Dependencies,
    "[build]": Build,
    "[start]": Start,
}
"""The tables of the file, and what reads them."""


def table() -> str:
    """Returns the table of the runtimes."""
    described_runtimes = [read_description(path) for path in sorted(SHIPPED.glob("*/runtime.toml"))]
    return markdown.table(
        ("name", "language", "takes", "Debian packages", "announced by", "inline code"),
        [
            (
                code(each.name),
                each.title,
                _takes(each.toolchain),
                " ".join(
                    code(package) for program in _programs(each.toolchain) for package in program.debian
                ),
                " ".join(map(code, each.announced_by)),
                "" if each.inline_file is None else code(each.inline_file),
            )
            for each in described_runtimes
        ],
    )


def keys() -> str:
    """Returns a table of keys for each table of the file."""
    return "\n\n".join(
        (f"`{name}`\n\n" if name else "") + _keys(model, name) for name, model in SECTIONS.items()
    )


def _keys(model: Any, section: str) -> str:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    tables = {
        name
        for name, field in fields.items()
        if f"[{name}]" in SECTIONS or f"[[toolchain.{name}]]" in SECTIONS
    }
    return markdown.table(
        ("key", "default", "meaning"),
        [
            (
                code(name),
                "required" if field.is_required() else _default(field.get_default()),
                described(field.description, f"{section} {name}"),
            )
            for name, field in fields.items()
            if name not in tables
        ],
    )


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return code(str(value).lower())
    return "" if value in (None, (), {}) else code(value)


def _takes(toolchain: Toolchain | None) -> str:
    words = []
    for program in _programs(toolchain):
        least = f" {program.least}+" if isinstance(program, Toolchain) and program.least else ""
        purpose = " (to build)" if isinstance(program, Also) and program.purpose == "builds" else ""
        words.append(f"{code(program.key)}{least}{purpose}")
    return ", ".join(words)


def _programs(toolchain: Toolchain | None) -> tuple[Program, ...]:
    """Returns the programs to be installed: Martlet's own interpreter is there."""
    if toolchain is None or toolchain.programs == ("{interpreter}",):
        return ()
    return (toolchain, *toolchain.also)
