"""``martlet invoke``: run a function from the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from martlet.cli.connection import connect
from martlet.cli.exits import ExitCode

if TYPE_CHECKING:
    import httpx2


def invoke(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="The function; or one revision or alias of it: hello@3, hello@live.")
    ],
    body: Annotated[str | None, typer.Argument(help="The request body; - reads it from stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read the request body from this file.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("-X", "--method", help="The HTTP method; POST with a body, GET without.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", "--header", metavar="NAME:VALUE", help="A header; may be repeated."),
    ] = None,
    path: Annotated[str, typer.Option(help="The path below the function's root.")] = "/",
    query: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the URL; may be repeated.")
    ] = None,
    later: Annotated[
        bool,
        typer.Option(
            "--async", help="Do not wait: print the id of the invocation, for `martlet invocation ID`."
        ),
    ] = False,
    include: Annotated[
        bool, typer.Option("-i", "--include", help="Show the status and the headers before the body.")
    ] = False,
) -> None:
    """Invoke a function and print its answer, as it comes.

    A body that is JSON is sent as JSON, unless a header says what it is. The exit code is 0 for a status 2xx.
    """
    content = _content(body, file)
    headers = dict(_pair(given, ":", "--header") for given in header or [])
    if content is not None and "content-type" not in map(str.lower, headers):
        headers["content-type"] = "application/json" if _is_json(content) else "application/octet-stream"
    parameters = dict(_pair(given, "=", "--query") for given in query or [])
    method = method or ("GET" if content is None else "POST")
    if later:
        with connect(context) as client:
            accepted = client.invoke_later(
                name, content, method=method, path=path, query=parameters, headers=headers
            )
        typer.echo(accepted["id"])
        return
    with (
        connect(context) as client,
        client.stream(name, content, method=method, path=path, query=parameters, headers=headers) as response,
    ):
        _show(response, include)
        if not response.is_success:
            raise typer.Exit(ExitCode.NOT_OK)


def _content(body: str | None, file: Path | None) -> bytes | None:
    if body is not None and file is not None:
        raise typer.BadParameter("give the body as an argument or with --file, not both", param_hint="BODY")
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--file") from None
    if body == "-":
        return sys.stdin.buffer.read()
    return None if body is None else body.encode()


def _pair(given: str, separator: str, option: str) -> tuple[str, str]:
    name, found, value = given.partition(separator)
    if not found or not name.strip():
        raise typer.BadParameter(f"{given!r} is not NAME{separator}VALUE", param_hint=option)
    return name.strip(), value.strip() if separator == ":" else value


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _show(response: httpx2.Response, include: bool) -> None:
    out = sys.stdout.buffer
    if include:
        typer.echo(f"{response.http_version} {response.status_code} {response.reason_phrase}")
        for name, value in response.headers.multi_items():
            typer.echo(f"{name}: {value}")
        typer.echo()
        sys.stdout.flush()
    last = b""
    for last in response.iter_bytes():
        out.write(last)
        out.flush()
    if sys.stdout.isatty() and last and not last.endswith(b"\n"):
        typer.echo()
