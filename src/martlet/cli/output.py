"""How results are shown: tables for people, JSON for programs, notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from martlet.terminal import plain

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Columns: TypeAlias = Mapping[str, Callable[[dict[str, Any]], object]]
"""The heading of each column, and how to find what stands under it."""

UNBOUNDED = 10_000
"""The width where there is no terminal: nothing is cut off or wrapped for a program that reads along."""


def show_json(document: Any) -> None:
    """Prints a document as JSON on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_list(documents: list[dict[str, Any]], columns: Columns, *, as_json: bool, empty: str) -> None:
    """Prints a list: as JSON, as a table, or what ``empty`` says when there is nothing in it."""
    if as_json:
        show_json(documents)
    elif documents:
        show_table(columns, ([find(document) for find in columns.values()] for document in documents))
    else:
        note(empty)


def show_fields(fields: Mapping[str, object]) -> None:
    """Prints names and values, one a line; those that are None are left out."""
    width = max(map(len, fields), default=0) + 2
    for name, value in fields.items():
        if value is not None:
            typer.echo(f"{typer.style(name.ljust(width), bold=True)}{plain(str(value))}")


def show_table(headings: Iterable[str], rows: Iterable[Iterable[object]], *, prose: str = "") -> None:
    """Prints a table on stdout; the column under the heading ``prose`` is wrapped rather than cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != prose)
    for row in rows:
        table.add_row(*(Text("-" if cell is None else plain(str(cell)).expandtabs(1)) for cell in row))
    Console(width=None if sys.stdout.isatty() else UNBOUNDED).print(table)


def note(text: str) -> None:
    """Tells a person something on stderr, so that stdout holds the result only."""
    typer.echo(plain(text), err=True)


def complain(sentence: str, next_step: str | None = None) -> None:
    """Says on stderr what went wrong and what to do next."""
    typer.echo(f"{typer.style('martlet:', fg='red', bold=True)} {plain(sentence)}", err=True)
    if next_step is not None:
        typer.echo(f"         {plain(next_step)}", err=True)
