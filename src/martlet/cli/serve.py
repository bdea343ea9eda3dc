"""``martlet serve``: the platform itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from martlet.cli.output import note, show_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from martlet.settings import Settings, SystemSettings


def serve(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="The configuration file.", envvar="FAAS_CONFIG_FILE")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="What this machine does: gateway, node, control, builder, some with commas between them, or all."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port of everything; 0 takes a free one.")] = None,
    lanes: Annotated[
        int | None, typer.Option(help="Processes that take requests; 0 is one per core.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The folder of the database, packages, logs and caches.")
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Development mode: demo-key and admin-key work; only on loopback.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything.")] = False,
) -> None:
    """Run the platform in the foreground until Ctrl-C.

    Options win over FAAS_* variables, those over the configuration file (`martlet config create` writes one).
    """
    from martlet.config import load_settings
    from martlet.serve.supervisor import serve as serve_platform

    flags = {
        "roles": role,
        "host": host,
        "api_gateway_port": port,
        "lanes": lanes,
        "function_storage_path": data,
        "development": dev or None,
        "logging_level": "DEBUG" if debug else None,
    }
    raise typer.Exit(serve_platform(load_settings(config, flags=flags), announce=announce))


def announce(settings: Settings) -> None:
    """Prints what a person needs to know once the platform is ready."""
    from martlet import __version__
    from martlet.client.address import LOCAL_URL
    from martlet.model import Role
    from martlet.paths import default_storage_path

    system = settings.system
    host = f"[{system.host}]" if ":" in system.host else system.host
    admin_key = system.function_storage_path / "admin.key"
    url = f"http://{host}:{system.api_gateway_port}"
    note(f"Martlet {__version__} is ready.")
    show_fields(
        {
            "roles": ", ".join(system.roles),
            "address": url if Role.GATEWAY in system.roles else None,
            "peers": system.peer_address,
            "keys": "demo-key, admin-key (development mode)" if system.development else f"in {admin_key}",
            "rungs": ", ".join(_rungs(system)),
            "network": f"{system.default_network}, for functions that name none",
            "lanes": settings.lane_count,
            "data": system.function_storage_path,
        }
    )
    if Role.GATEWAY not in system.roles:
        return
    note("Ctrl-C stops it. From another terminal:")
    if url != LOCAL_URL:
        note(f"  export MARTLET_URL={url}")
    if not system.development and system.function_storage_path != default_storage_path():
        note(f"  export MARTLET_KEY=$(cat {admin_key})")
    note("  martlet init hello && martlet deploy hello")


def _rungs(system: SystemSettings) -> Iterator[str]:
    yield "process"
    if not system.disable_container:
        yield f"container (by {system.container_runtime})"
    if not system.disable_microvm:
        yield "microvm"
