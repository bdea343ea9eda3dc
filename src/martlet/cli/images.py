"""``martlet images``: what containers have as their root, and functions that are images."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.exits import ExitCode
from martlet.cli.formats import mebibytes, moment
from martlet.cli.output import Json, complain, note, show_json, show_list

app = typer.Typer(help="List, build, import, remove and scan the images of containers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The image, as `martlet images list` shows it.")]
MOST = 64 * 1024**3
"""Bytes of an image of an engine that is sent; the platform's own limit decides, this one stops a mistake."""


@app.command("list")
def list_images(context: typer.Context, as_json: Json = False) -> None:
    """List the images, with what needs them."""
    with connect(context) as client:
        found = client.images()
    columns = {
        "NAME": lambda image: image["name"],
        "DIGEST": lambda image: image["digest"][:12],
        "SIZE": lambda image: mebibytes(image["size"]),
        "CREATED": lambda image: moment(image["created"]),
        "FROM": lambda image: image["source"],
        "USED BY": lambda image: ", ".join(image["used_by"]) or None,
    }
    show_list(
        found, columns, as_json=as_json, empty="There are no images: `martlet images import` takes one in."
    )


@app.command("build")
def build_images(
    context: typer.Context,
    runtime: Annotated[list[str], typer.Argument(help="Runtimes, as `martlet runtimes` lists them.")],
) -> None:
    """Build the Debian roots of runtimes, for `base_image: debian`; they are built on first use otherwise."""
    failures: list[str] = []

    def show(line: dict[str, Any]) -> None:
        if line["failed"]:
            failures.append(line["message"])
        else:
            note(f"  {line['message']}")

    with connect(context) as client:
        client.build_images(list(runtime), show)
    for failure in failures:
        complain(failure)
    if failures:
        raise typer.Exit(ExitCode.FAILED)


@app.command("import")
def import_image(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the image will be called.")],
    source: Annotated[
        str,
        typer.Argument(
            help="An OCI archive or folder, what `docker save` or `podman save` writes, or an image of an engine of "
            "this machine: docker://NAME, podman://NAME."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Import an image; a name that is taken means the new one from then on."""
    with connect(context) as client, _archive(source) as archive, archive.open("rb") as file:
        note(f"sending {source} ({mebibytes(archive.stat().st_size)})")
        image = client.add_image(name, file)
    if as_json:
        show_json(image)
    else:
        note(f"{image['name']} is {image['digest'][:12]}, {mebibytes(image['size'])}")


@app.command("remove")
def remove_image(context: typer.Context, name: Name) -> None:
    """Remove an image that nobody uses."""
    with connect(context) as client:
        client.remove_image(name)
    note(f"{name} is removed.")


@app.command("scan")
def scan_image(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List the packages of an image, and their known vulnerabilities where trivy or grype is installed.

    The exit code is 1 where there are some.
    """
    with connect(context) as client:
        found = client.scan_image(name)
    if as_json:
        show_json(found)
    else:
        _show(found["packages"], ("NAME", "VERSION", "KIND"), "It has no list of packages.")
        if found["vulnerabilities"] is not None:
            typer.echo()
            headings = ("ID", "SEVERITY", "PACKAGE", "VERSION", "FIXED")
            _show(found["vulnerabilities"], headings, f"{found['scanner']} knows of nothing wrong.")
        for text in found["notes"]:
            note(f"{text[:1].upper()}{text[1:]}.")
    if found["vulnerabilities"]:
        raise typer.Exit(ExitCode.FAILED)


def _show(documents: list[dict[str, Any]], headings: tuple[str, ...], empty: str) -> None:
    show_list(documents, {each: itemgetter(each.lower()) for each in headings}, as_json=False, empty=empty)


@contextmanager
def _archive(source: str) -> Iterator[Path]:
    """Gives the file to send: the archive itself, or one of a folder or of what an engine has."""
    from martlet.errors import Invalid
    from martlet.images.engine import PREFIXES, export

    path = Path(source)
    if not source.startswith(PREFIXES) and path.is_file():
        yield path
        return
    with TemporaryDirectory(prefix="martlet-") as folder:
        if source.startswith(PREFIXES):
            path = export(source, Path(folder), MOST)
        elif not (path / "index.json").is_file():
            raise Invalid(f"{source} is neither an archive nor the folder of an OCI image", field="source")
        archive = Path(folder) / "image.tar"
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as packed:
            packed.add(path, ".")
        yield archive
