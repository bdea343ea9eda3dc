"""Markdown, as far as the generated parts need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Undocumented(Exception):
    """Something that people use has no description; the message names it."""


def described(text: str | None, what: str) -> str:
    """Returns a description as one line.

    Raises:
        Undocumented: there is none.
    """
    line = " ".join((text or "").split())
    if not line:
        raise Undocumented(f"{what} has no description")
    return line


def code(text: object) -> str:
    """Writes text as code."""
    return f"`{text}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
