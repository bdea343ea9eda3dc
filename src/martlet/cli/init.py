"""``martlet init``: a function to begin with."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from martlet.cli.output import note

TEMPLATES = Path(__file__).parent / "templates"


class Template(StrEnum):
    """What there is to begin with; each is a folder of `TEMPLATES`."""

    HELLO = "hello"
    STREAMING = "streaming"
    ASGI = "asgi"
    WEBHOOK = "webhook"


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write; the function is named after it.")
    ] = Path("hello"),
    template: Annotated[
        Template,
        typer.Option(
            "-t",
            "--template",
            help="hello answers JSON; streaming answers piece by piece; asgi is a web application; "
            "webhook checks a signature.",
        ),
    ] = Template.HELLO,
    name: Annotated[
        str | None, typer.Option(help="The function's name; that of the folder by default.")
    ] = None,
) -> None:
    """Write a function from a template: its code and its martlet.yaml. Nothing is overwritten."""
    from martlet.cli.manifest import FILE, manifest_of, name_of
    from martlet.errors import Conflict

    name = manifest_of({"name": name}, "the options").name if name else name_of(folder)
    files = {
        path.name: path.read_text() for path in sorted((TEMPLATES / template).iterdir()) if path.is_file()
    }
    files[FILE] = f"name: {name}\n{files[FILE]}"
    for file in files:
        if (folder / file).exists():
            raise Conflict(f"{folder / file} is there already: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)
        note(f"wrote {folder / file}")
    note(f"Next: martlet dev {folder}, or martlet deploy {folder}")
