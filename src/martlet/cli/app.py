"""The commands, in the order in which ``martlet --help`` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from martlet.cli import (
    aliases,
    asynchronous,
    cluster,
    config,
    denied,
    deploy,
    dev,
    doctor,
    exits,
    explain,
    functions,
    images,
    init,
    instances,
    invoke,
    keys,
    logs,
    nodes,
    platform,
    serve,
    simulate,
)
from martlet.cli.connection import Platform

WRITE, SEE, RUN = "Functions", "What happens", "The platform"

app = typer.Typer(
    name="martlet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in exits.ExitCode) + ".",
)


@app.callback()
def martlet(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="Where the platform is: MARTLET_URL, or the one on this machine, by default."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The key to show: MARTLET_KEY, or that of this machine, by default."),
    ] = None,
) -> None:
    """Hand it a function, it answers HTTP requests with it in milliseconds."""
    context.obj = Platform(url, key)


app.command("init", rich_help_panel=WRITE)(init.init)
app.command("dev", rich_help_panel=WRITE)(dev.dev)
app.command("deploy", rich_help_panel=WRITE)(deploy.deploy)
app.command("invoke", rich_help_panel=WRITE)(invoke.invoke)
app.command("list", rich_help_panel=WRITE)(functions.list_functions)
app.command("describe", rich_help_panel=WRITE)(functions.describe)
app.command("delete", rich_help_panel=WRITE)(functions.delete)
app.command("revisions", rich_help_panel=WRITE)(functions.revisions)
app.command("rollback", rich_help_panel=WRITE)(functions.rollback)
app.add_typer(aliases.app, name="alias", rich_help_panel=WRITE)

app.command("logs", rich_help_panel=SEE)(logs.logs)
app.command("invocations", rich_help_panel=SEE)(logs.invocations)
app.command("invocation", rich_help_panel=SEE)(asynchronous.invocation)
app.add_typer(asynchronous.dead_letters, name="dead-letters", rich_help_panel=SEE)
app.command("explain", rich_help_panel=SEE)(explain.explain)
app.command("stats", rich_help_panel=SEE)(platform.stats)
app.add_typer(instances.app, name="instances", rich_help_panel=SEE)
app.add_typer(platform.builds, name="builds", rich_help_panel=SEE)
app.command("denied", rich_help_panel=SEE)(denied.denied)

app.command("serve", rich_help_panel=RUN)(serve.serve)
app.command("doctor", rich_help_panel=RUN)(doctor.doctor)
app.add_typer(config.app, name="config", rich_help_panel=RUN)
app.add_typer(keys.app, name="keys", rich_help_panel=RUN)
app.add_typer(images.app, name="images", rich_help_panel=RUN)
app.command("runtimes", rich_help_panel=RUN)(platform.runtimes)
app.add_typer(cluster.app, name="cluster", rich_help_panel=RUN)
app.add_typer(nodes.app, name="nodes", rich_help_panel=RUN)
app.command("simulate", rich_help_panel=RUN)(simulate.simulate)
app.command("version", rich_help_panel=RUN)(platform.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code (see `exits`).

    Args:
        arguments: the words after ``martlet``; those of this process by default.
    """
    try:
        app(arguments, prog_name="martlet")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        # Imported late: a command that works needs none of it.
        from martlet.cli.failures import EXPECTED, explain
        from martlet.cli.output import complain

        if not isinstance(error, EXPECTED):
            raise
        failure = explain(error)
        complain(failure.sentence, failure.next_step)
        return failure.code
    return exits.ExitCode.DONE
