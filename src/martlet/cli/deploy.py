"""``martlet deploy``: from code on this disk to a function that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.output import Json, note, show_json
from martlet.cli.progress import DeployProgress

if TYPE_CHECKING:
    from martlet.client import Client


def setting(text: str, **more: Any) -> Any:
    """Returns the option of a key of the function's configuration."""
    return typer.Option(help=text, rich_help_panel="Configuration", **more)


def deploy(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="A folder, an archive (zip, tar.gz, tar) or one file of code; this folder by default, and none with "
            "--image.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The function's name; that of the folder, the file or the image by default."),
    ] = None,
    git: Annotated[
        str | None,
        typer.Option(metavar="URL[#REF[:PATH]]", help="Let the platform fetch the code from git instead."),
    ] = None,
    execution_mode: Annotated[str | None, setting("The rung of the isolation ladder.")] = None,
    runtime: Annotated[str | None, setting("The language and version (`martlet runtimes`).")] = None,
    image: Annotated[str | None, setting("An image to be its root, and its code (`martlet images`).")] = None,
    handler: Annotated[str | None, setting("What to run, as its language writes it.")] = None,
    timeout: Annotated[float | None, setting("Seconds a request may run.")] = None,
    memory: Annotated[str | None, setting("Memory limit of an instance (128Mi).")] = None,
    cpu_limit: Annotated[str | None, setting("CPU limit of an instance (500m).")] = None,
    dependency: Annotated[
        list[str] | None, setting("A package to install, as pip writes it; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None, setting("An environment variable; may be repeated.", metavar="NAME=VALUE")
    ] = None,
    network: Annotated[str | None, setting("What it reaches: none, egress or host.")] = None,
    egress_to: Annotated[
        list[str] | None,
        setting("With egress, the only destinations; may be repeated.", metavar="NETWORK[:PORT[-PORT]]"),
    ] = None,
    min_instances: Annotated[int | None, setting("Instances kept ready even when idle.")] = None,
    max_instances: Annotated[int | None, setting("Instances there may be at once.")] = None,
    concurrency: Annotated[int | None, setting("Requests one instance serves at once.")] = None,
    max_queue: Annotated[int | None, setting("Requests that may wait for an instance.")] = None,
    idle_ttl: Annotated[float | None, setting("Seconds an idle instance is kept.")] = None,
    rate_limit: Annotated[str | None, setting("Requests the function accepts (100/s).")] = None,
    public: Annotated[
        bool | None, setting("Whether anybody may invoke it, without a key.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Deploy a function: create it, or make a new revision of it, and wait until that serves.

    Its configuration is what martlet.yaml in the folder, or beside the file, says, and the defaults for the
    rest; options win over it. Without such a file, only what options name changes. Files that .martletignore
    names, written like a .gitignore, are left out.
    """
    options = {
        "name": name,
        "execution_mode": execution_mode,
        "runtime": runtime,
        "image": image,
        "handler": handler,
        "timeout": timeout,
        "memory": memory,
        "cpu_limit": cpu_limit,
        "dependencies": dependency or None,
        "environment": _variables(env or []) or None,
        "network": network,
        "egress_to": egress_to or None,
        "min_instances": min_instances,
        "max_instances": max_instances,
        "concurrency": concurrency,
        "max_queue": max_queue,
        "idle_ttl": idle_ttl,
        "rate_limit": rate_limit,
        "public": public,
    }
    given = {key: value for key, value in options.items() if value is not None}
    repository = None if git is None else _repository(git)
    if repository is not None:
        name, config = configuration_of_git(repository, given)
    elif source is None and image is not None:
        name, config = configuration_of_image(image, given)
    else:
        source = source or Path(".")
        name, config = configuration(source, given)
    with connect(context) as client:
        function = deploy_with_progress(client, name, source, config, repository)
        if as_json:
            show_json(function)
            return
        note(f"{name}@{function['latest']} serves at")
        typer.echo(f"{client.address.url}/invoke/{name}")
        body = "" if function["config"]["runtime"] in ("http", "static") else " '{}'"
        note(f"Try: martlet invoke {name}{body}")


def deploy_with_progress(
    client: Client,
    name: str,
    source: Path | None,
    config: dict[str, Any],
    git: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Deploys, showing how far it is."""
    with DeployProgress(name) as progress:
        return client.deploy(
            name, source, config, git=git, on_upload=progress.uploaded, on_line=progress.line
        )


def configuration(source: Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the configuration of a deploy: the manifest's, overlaid by the options.

    Raises:
        Invalid: a value is not allowed, or there is nothing to deploy.
    """
    from martlet.cli.manifest import manifest_of, name_of, read_manifest
    from martlet.errors import Invalid

    if not source.exists():
        raise Invalid(
            f"there is no {source} to deploy: name a folder, an archive or a file of code", field="source"
        )
    manifest = read_manifest(source)
    overlay = manifest_of(options, "the options")
    name = overlay.name or (manifest and manifest.name) or name_of(source)
    return name, (manifest.config if manifest else {}) | overlay.given


def configuration_of_git(git: dict[str, str], options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Like `configuration`, for code that lies in git: only the options count, and the last folder names it."""
    from martlet.cli.manifest import manifest_of, name_of

    overlay = manifest_of(options, "the options")
    place = (git.get("path") or git["url"]).rstrip("/").removesuffix(".git")
    return overlay.name or name_of(Path(place.rpartition("/")[2])), overlay.given


def configuration_of_image(image: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Like `configuration`, for a function that is an image without code: only the options count, and it names it."""
    from martlet.cli.manifest import manifest_of, name_of

    overlay = manifest_of(options, "the options")
    return overlay.name or name_of(Path(image.partition("@")[0])), overlay.given


def _repository(text: str) -> dict[str, str]:
    url, _, where = text.partition("#")
    ref, _, path = where.partition(":")
    return {"url": url} | ({"ref": ref} if ref else {}) | ({"path": path} if path else {})


def _variables(assignments: list[str]) -> dict[str, str]:
    variables = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE", param_hint="--env")
        variables[name] = value
    return variables
