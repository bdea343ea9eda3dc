"""Which platform the commands talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import typer

from martlet.cli.output import note

if TYPE_CHECKING:
    from martlet.client import Client


class Platform(NamedTuple):
    """What ``--url`` and ``--key`` say; None is the environment's, or the platform on this machine."""

    url: str | None
    key: str | None


def connect(context: typer.Context) -> Client:
    """Returns a client of the platform that the command is for."""
    from martlet.client import Client

    platform: Platform = context.find_root().obj
    return Client(platform.url, platform.key, on_missing=_warn)


def _warn(missing: list[str]) -> None:
    if missing:
        note(f"What {', '.join(missing)} has is not shown: it does not answer (see `martlet nodes`).")
