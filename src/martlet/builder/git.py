"""Source that lies in a git repository, fetched in the sandbox of builds."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from martlet.builder.running import RunningBuild
from martlet.builder.workshop import OUTPUT, CommandFailed, Job, Workshop
from martlet.drivers.driver import DriverError
from martlet.errors import BuildFailed, Unavailable
from martlet.model import GitSource

_FIELD = "git"
# Values come as variables, so that none of them is ever read as an option or as shell.
_SCRIPT = """
set -eu
git config --global safe.directory '*'
git init --quiet .
git fetch --quiet --depth 1 --no-tags --no-recurse-submodules -- "$GIT_SOURCE_URL" "$GIT_SOURCE_REF"
git checkout --quiet --detach FETCH_HEAD
"""
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:file",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


async def fetch(
    workshop: Workshop, source: GitSource, build: RunningBuild, timeout: float
) -> tuple[Path, str]:
    """Fetches one commit of a repository, without its history; returns the folder that was named, and the commit's id.

    Raises:
        BuildFailed: there is no such repository, commit or folder, or it took too long.
        Unavailable: this machine lets nothing be fetched.
    """
    folder = build.folder / "clone"
    folder.mkdir()
    job = Job(
        id=f"{build.build.id}-git",
        command=["/bin/sh", "-c", _SCRIPT],
        folders={OUTPUT: folder},
        environment={**_ENVIRONMENT, "GIT_SOURCE_URL": source.url, "GIT_SOURCE_REF": source.ref},
        network=True,
    )
    build.say(f"fetching {source.ref} of {source.url}")
    try:
        async with build.slot(), asyncio.timeout(timeout):
            await workshop.run(job, build.say)
    except CommandFailed as error:
        limit = "" if error.limit is None else f" ({error.limit})"
        raise BuildFailed(
            f"git.url: {source.ref} of {source.url} cannot be fetched: {error}{limit}; the build's log says why",
            field=_FIELD,
        ) from None
    except TimeoutError:
        raise BuildFailed(
            f"git: fetching took over {timeout:g} s (system.build_timeout)", field=_FIELD
        ) from None
    except DriverError as error:
        raise Unavailable(f"nothing can be fetched on this machine: {error}") from None
    commit = _commit(folder)
    build.say(f"this is commit {commit}")
    wanted = (folder / source.path).resolve()
    if not wanted.is_dir() or not wanted.is_relative_to(folder.resolve()):
        raise BuildFailed(f"git.path: the repository has no folder {source.path!r}", field="git.path")
    return wanted, commit


def _commit(folder: Path) -> str:
    """Returns the id of the commit that is checked out; whoever was fetched from may have written anything there."""
    try:
        with open(os.open(folder / ".git/HEAD", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as head:
            text = head.read(100).decode("ascii", "replace").strip()
    except OSError:
        text = ""
    if not _COMMIT.fullmatch(text):
        raise BuildFailed("git: the repository could not be checked out", field=_FIELD)
    return text
