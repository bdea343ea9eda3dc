"""``martlet cluster``: which machines belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from martlet.cli.formats import seconds
from martlet.cli.output import note

if TYPE_CHECKING:
    from martlet.cluster.identity import Identity

app = typer.Typer(help="Let machines prove to each other that they belong together.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("-c", "--config", help="The configuration file.", envvar="FAAS_CONFIG_FILE")
]
Data = Annotated[Path | None, typer.Option(help="The folder of the database, packages, logs and caches.")]


@app.command("init")
def init(config: Config = None, data: Data = None) -> None:
    """Begin a cluster: make its certificate authority, and a certificate for this machine."""
    from martlet.cluster.joining import begin
    from martlet.control.machine import node_id

    identity, folder = _identity(config, data)
    begin(identity, node_id(folder))
    note(f"This machine is the first of a cluster; its key is {identity.authority_key}: keep a copy of it.")
    note("For each further machine, run `martlet cluster token` here and `martlet cluster join` there.")


@app.command("token")
def token(
    expires_in: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is good for: 90s, 15m, 12h or 30d.")
    ] = "1h",
    config: Config = None,
    data: Data = None,
) -> None:
    """Print a token with which machines may join, on the machine where the cluster began."""
    from martlet.cluster.authority import Authority
    from martlet.cluster.token import Token

    identity, _ = _identity(config, data)
    made = Token.new(Authority.of(identity).secret, seconds(expires_in, "--expires-in"))
    note("On the machine that joins: martlet cluster join http://THIS-MACHINE:8000 TOKEN")
    typer.echo(str(made))


@app.command("join")
def join(
    url: Annotated[str, typer.Argument(help="Where the machine that began the cluster takes requests.")],
    token: Annotated[str, typer.Argument(help="What `martlet cluster token` printed there.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Get a certificate for this machine, or a new one before the old one ends."""
    from martlet.cluster.authority import expiry
    from martlet.cluster.joining import join as join_cluster
    from martlet.cluster.token import Token
    from martlet.control.machine import node_id

    identity, folder = _identity(config, data)
    join_cluster(identity, node_id(folder), url, Token.parse(token))
    note(f"This machine is of the cluster; its certificate ends on {expiry(identity.certificate):%Y-%m-%d}.")
    note("Restart `martlet serve` if it runs: it reads certificates when it starts.")


def _identity(config: Path | None, data: Path | None) -> tuple[Identity, Path]:
    """Returns what is known of this machine's identity, and its data folder."""
    from martlet.cluster.identity import Identity
    from martlet.config import load_settings

    settings = load_settings(config, flags={"function_storage_path": data})
    folder = settings.system.function_storage_path
    return Identity(folder), folder
