"""Source from git: fetched in the sandbox, one commit of it, and nothing that the URL should not reach."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from martlet.builder.builds import Builds, Outcome, RunningBuild, new_build
from martlet.builder.git import fetch
from martlet.builder.workshop import Workshop
from martlet.errors import BuildFailed
from martlet.model import GitSource, MiB, Network
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry

pytestmark = [pytest.mark.anyio, pytest.mark.root]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "functions/hello").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for text in ("one", "two"):
        (folder / "functions/hello/handler.py").write_text(text)
        (folder / "out").unlink(missing_ok=True)
        (folder / "out").symlink_to("/etc")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", text)
        git(folder, "tag", text)
    return folder


@pytest.fixture
async def workshop(tmp_path: Path, repository: Path) -> AsyncIterator[Workshop]:
    lane = 90 + os.getpid() % 100
    limits = {"memory": 256 * MiB, "disk": 64 * MiB, "environment": {}, "shown": [repository]}
    workshop = Workshop(tmp_path / "run", lane, network=Network.NONE, egress=None, **limits)
    await workshop.open()
    yield workshop
    await workshop.close()


async def fetched(workshop: Workshop, folder: Path, **source: str) -> tuple[str, str]:
    """Returns the handler that was fetched and the commit."""
    builds, found = Builds(Registry(MemoryStore()), folder / "builds", 2), []

    async def work(build: RunningBuild) -> Outcome:
        place, commit = await fetch(workshop, GitSource(**source), build, 30)
        found.append(((place / "handler.py").read_text(), commit))
        return Outcome(1)

    await builds.begin(new_build("hello"), work).task
    return found[0]


@pytest.mark.parametrize(("ref", "text"), [("HEAD", "two"), ("main", "two"), ("one", "one")])
async def test_a_branch_or_tag_is_fetched(
    workshop, repository: Path, tmp_path: Path, ref: str, text: str
) -> None:
    url = f"file://{repository}"
    handler, commit = await fetched(workshop, tmp_path, url=url, ref=ref, path="functions/hello")
    assert (handler, commit) == (text, git(repository, "rev-parse", f"{ref}^{{commit}}"))


async def test_a_repository_that_the_operator_does_not_show_is_not_there(workshop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(workshop, tmp_path, url=f"file://{other}")


async def test_a_ref_or_folder_that_is_not_there_is_named(workshop, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="no-such-ref"):
        await fetched(workshop, tmp_path, url=f"file://{repository}", ref="no-such-ref")
    for path in ("functions/bye", "out", "functions/hello/handler.py"):
        with pytest.raises(BuildFailed, match=path) as caught:
            await fetched(workshop, tmp_path, url=f"file://{repository}", path=path)
        assert caught.value.field == "git.path"


@pytest.mark.parametrize(
    "source",
    [
        {"url": "ext::sh -c id"},
        {"url": "--upload-pack=id"},
        {"url": "/etc"},
        {"url": "https://user:password@example.com/x"},
        {"url": "https://example.com/x y"},
        {"url": "https://example.com/x", "ref": "--upload-pack=id"},
        {"url": "https://example.com/x", "ref": "a..b"},
        {"url": "https://example.com/x", "ref": "a:b"},
        {"url": "https://example.com/x", "path": "../up"},
        {"url": "https://example.com/x", "path": "/etc"},
    ],
)
def test_what_is_no_address_or_name_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        GitSource(**source)
