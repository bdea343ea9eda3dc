"""``martlet config``: the configuration of the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from martlet.cli.output import Json, note, show_json

app = typer.Typer(help="Write, check and show the configuration of the platform.", no_args_is_help=True)

DEFAULT_FILE = Path("faas_config.yaml")

File = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="The configuration file.", envvar="FAAS_CONFIG_FILE"),
]


@app.command("create")
def create(
    file: Annotated[Path, typer.Argument(help="The file to write; - prints it.")] = DEFAULT_FILE,
) -> None:
    """Write a sample configuration, with every setting and what it means. Nothing is overwritten."""
    from martlet.cli.sample import sample
    from martlet.errors import Conflict, Invalid

    if str(file) == "-":
        typer.echo(sample(), nl=False)
        return
    try:
        with file.open("x") as out:
            out.write(sample())
    except FileExistsError:
        raise Conflict(f"{file} is there already: choose another name, or remove it") from None
    except OSError as error:
        raise Invalid(f"cannot write {file}: {error.strerror}") from None
    note(f"wrote {file}; next: martlet serve -c {file}")


@app.command("check")
def check(
    file: Annotated[
        Path, typer.Argument(help="The file to check.", envvar="FAAS_CONFIG_FILE")
    ] = DEFAULT_FILE,
) -> None:
    """Check a configuration file; the first fault is named by its field."""
    from martlet.config import load_settings

    settings = load_settings(file, environment={})
    functions = len(settings.functions)
    note(f"{file} is valid, with {functions} function{'' if functions == 1 else 's'}.")


@app.command("show")
def show(file: File = None, as_json: Json = False) -> None:
    """Print the settings in force: defaults, the file and the FAAS_* variables, merged."""
    import yaml

    from martlet.config import load_settings

    settings = load_settings(file).model_dump(mode="json")
    if as_json:
        show_json(settings)
    else:
        typer.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), nl=False)
