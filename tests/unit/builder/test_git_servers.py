"""Source from real git servers on loopback, over HTTP and SSH: with and without keys, and from hostile repositories."""

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from martlet.builder.builds import Builds, Outcome, RunningBuild, new_build
from martlet.builder.git import fetch
from martlet.builder.workshop import Workshop
from martlet.errors import BuildFailed
from martlet.model import GitSource, MiB, Network
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry
from tests.conftest import require
from tests.ports import free_port
from tests.unit.builder.test_git import git

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow]

PASSWORD = "nobody-else-knows"


class GitServer:
    """``git http-backend`` behind HTTP, in use as a context: ``/open/NAME``, ``/closed/NAME`` for somebody with the
    password, ``/moved/NAME`` which redirects to the first, and ``/astray/NAME`` which redirects to a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        folder = self._folder
        key = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, _, rest = self.path.strip("/").partition("/")
                if kind == "moved":
                    self.refuse(301, "location", f"/open/{rest}")
                elif kind == "astray":
                    self.refuse(301, "location", f"file://{folder}/{rest}")
                elif kind == "closed" and self.headers["authorization"] != f"Basic {key}":
                    self.refuse(401, "www-authenticate", "Basic realm=test")
                else:
                    self.run(rest)

            do_POST = do_GET

            def refuse(self, status: int, name: str, value: str) -> None:
                self.send_response(status)
                self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def run(self, target: str) -> None:
                url = urlsplit(f"/{target}")
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                environment = {
                    **{
                        "GIT_PROJECT_ROOT": str(folder),
                        "GIT_HTTP_EXPORT_ALL": "1",
                        "PATH": os.environ["PATH"],
                    },
                    **{"PATH_INFO": url.path, "QUERY_STRING": url.query, "REQUEST_METHOD": self.command},
                    "CONTENT_TYPE": self.headers["content-type"] or "",
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers["content-encoding"] or "",
                    "GIT_PROTOCOL": self.headers["git-protocol"] or "",
                    **{
                        "GIT_CONFIG_COUNT": "1",
                        "GIT_CONFIG_KEY_0": "safe.directory",
                        "GIT_CONFIG_VALUE_0": "*",
                    },
                }
                done = subprocess.run(
                    ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(fields.pop("Status", "200").split()[0]))
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Handler


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a branch, a tag, a folder and a submodule."""
    folder = tmp_path / "served/functions.git"
    (folder / "hello").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "hello/handler.py").write_text("first")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "tag", "v1")
    (folder / "hello/handler.py").write_text("second")
    (folder / ".gitmodules").write_text(
        '[submodule "other"]\n\tpath = hello/other\n\turl = http://127.0.0.1:9/other\n'
    )
    git(
        folder,
        "update-index",
        "--add",
        "--cacheinfo",
        f"160000,{git(folder, 'rev-parse', 'HEAD')},hello/other",
    )
    git(folder, "add", ".gitmodules", "hello/handler.py")
    git(folder, "commit", "-q", "-m", "second")
    return folder


@pytest.fixture
def server(repository: Path) -> Iterator[GitServer]:
    with GitServer(repository.parent) as server:
        yield server


@dataclass
class Fetched:
    """What came of fetching: the folder's files, the commit, and all that was said."""

    files: set[str]
    text: str
    commit: str
    said: str


@asynccontextmanager
async def workshop_with(
    folder: Path, environment: dict[str, str], shown: list[Path]
) -> AsyncIterator[Workshop]:
    limits = {"memory": 256 * MiB, "disk": 16 * MiB, "environment": environment, "shown": shown}
    lane = 90 + os.getpid() % 100
    workshop = Workshop(folder / "run", lane, network=Network.HOST, egress=None, **limits)
    await workshop.open()
    try:
        yield workshop
    finally:
        await workshop.close()


async def fetched(
    folder: Path, environment: dict[str, str] | None = None, shown: list[Path] | None = None, **source: str
) -> Fetched:
    """Fetches ``source`` as builds do, with what the operator gives them."""
    builds, found = Builds(Registry(MemoryStore()), folder / "builds", 2), []

    async def work(build: RunningBuild) -> Outcome:
        place, commit = await fetch(workshop, GitSource(**source), build, 60)
        said = "\n".join(line.message for line in build.lines)
        files = {str(path.relative_to(place)) for path in place.rglob("*") if ".git" not in path.parts}
        found.append(Fetched(files, (place / "handler.py").read_text(), commit, said))
        return Outcome(1)

    async with workshop_with(folder, environment or {}, shown or []) as workshop:
        await builds.begin(new_build("hello"), work).task
    return found[0]


@pytest.mark.parametrize("kind", ["open", "moved"])
async def test_branches_tags_and_commits_come_over_http_without_submodules(
    server: GitServer, repository: Path, tmp_path: Path, kind: str
) -> None:
    first = git(repository, "rev-parse", "v1")
    for ref, text in (("main", "second"), ("v1", "first"), (first, "first")):
        url = f"{server.url}/{kind}/functions.git/.git"
        result = await fetched(tmp_path, url=url, ref=ref, path="hello")
        assert (result.text, result.commit) == (text, git(repository, "rev-parse", ref))
        assert result.files <= {"handler.py", "other"}


async def test_a_password_is_the_operators_and_shows_nowhere(server: GitServer, tmp_path: Path) -> None:
    source = {"url": f"{server.url}/closed/functions.git/.git", "path": "hello"}
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(tmp_path, **source)

    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "passwords").write_text(f"http://somebody:{PASSWORD}@{server.address}\n")
    (hidden / "passwords").chmod(0o644)
    helper = f"store --file={hidden}/passwords"
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper", "GIT_CONFIG_VALUE_0": helper}
    result = await fetched(tmp_path, given, [hidden / "passwords"], **source)
    assert result.text == "second"
    assert PASSWORD not in result.said
    stored = [path for path in (tmp_path / "builds").rglob("*") if path.is_file()]
    assert [path for path in stored if PASSWORD.encode() in path.read_bytes()] == []


async def test_a_redirect_leads_to_no_file(server: GitServer, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(tmp_path, {}, [repository], url=f"{server.url}/astray/functions.git/.git")


async def test_a_repository_over_the_limit_is_given_up(
    server: GitServer, repository: Path, tmp_path: Path
) -> None:
    for number in range(3):
        (repository / f"large-{number}").write_bytes(os.urandom(7 * MiB))
    git(repository, "add", "large-0", "large-1", "large-2")
    git(repository, "commit", "-q", "-m", "large")
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(tmp_path, url=f"{server.url}/open/functions.git/.git", path="hello")


@pytest.mark.parametrize("name", [".git", ".GIT", "..", "."])
async def test_a_tree_that_reaches_into_the_repository_is_refused(
    server: GitServer, repository: Path, tmp_path: Path, name: str
) -> None:
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=repository,
        input=b"[core]\n",
        capture_output=True,
        check=True,
    ).stdout.strip()
    inner = tree_of(repository, b"100644 post-checkout\0" + bytes.fromhex(blob.decode()))
    outer = tree_of(repository, b"40000 " + name.encode() + b"\0" + bytes.fromhex(inner))
    commit = git(repository, "commit-tree", outer, "-m", "hostile")
    git(repository, "update-ref", "refs/heads/hostile", commit)
    with pytest.raises(BuildFailed) as caught:
        await fetched(tmp_path, url=f"{server.url}/open/functions.git/.git", ref="hostile")
    assert "invalid path" in "\n".join(caught.value.extra["log"])


def tree_of(repository: Path, content: bytes) -> str:
    """Writes a tree that git itself would not make; returns its id."""
    command = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    done = subprocess.run(command, cwd=repository, input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


async def test_neither_hooks_nor_filters_nor_settings_of_a_repository_run_anything(
    server: GitServer, repository: Path, tmp_path: Path
) -> None:
    hook = "#!/bin/sh\necho pwned\n"
    for name in ("post-checkout", "post-merge"):
        (repository / ".git/hooks" / name).write_text(hook)
        (repository / ".git/hooks" / name).chmod(0o755)
    git(repository, "config", "filter.evil.smudge", "echo pwned")
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / ".gitconfig").write_text('[core]\n\tfsmonitor = "echo pwned"\n')
    git(repository, "add", ".gitattributes", ".gitconfig")
    git(repository, "commit", "-q", "-m", "hostile")
    result = await fetched(tmp_path, url=f"{server.url}/open/functions.git/.git", path="hello")
    assert (result.text, "pwned" in result.said) == ("second", False)


@pytest.fixture
def sshd(tmp_path: Path, repository: Path) -> Iterator[Callable[[], tuple[str, Path]]]:
    """Starts a server of SSH that lets one key in; says its address, and where key and known hosts are."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    require(program and shutil.which("ssh-keygen"), "openssh-server")
    assert program is not None
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (keys / "user").chmod(0o644)
    Path("/run/sshd").mkdir(exist_ok=True)  # the program insists
    port = free_port()
    host_key = (keys / "host.pub").read_text().rsplit(" ", 1)[0]
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (keys / "known_hosts").chmod(0o644)
    options = {
        **{"ListenAddress": f"127.0.0.1:{port}", "HostKey": keys / "host", "PidFile": "none", "UsePAM": "no"},
        **{"AuthorizedKeysFile": keys / "user.pub", "StrictModes": "no", "PasswordAuthentication": "no"},
        **{"KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes"},
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    server = subprocess.Popen([program, "-D", "-f", "/dev/null", *words], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "sshd does not listen"
                time.sleep(0.02)
        yield lambda: (f"ssh://root@127.0.0.1:{port}{repository}", keys)
    finally:
        server.terminate()
        server.wait()


async def test_ssh_takes_the_key_and_the_known_hosts_of_the_operator(
    sshd, repository: Path, tmp_path: Path
) -> None:
    url, keys = sshd()
    command = f"ssh -i {keys}/user -o UserKnownHostsFile={keys}/known_hosts -o StrictHostKeyChecking=yes"
    shown = [keys / "user", keys / "known_hosts"]
    result = await fetched(tmp_path, {"GIT_SSH_COMMAND": command}, shown, url=url, ref="v1", path="hello")
    assert (result.text, result.commit) == ("first", git(repository, "rev-parse", "v1"))


async def test_ssh_goes_to_no_host_that_is_not_known_and_has_no_key_of_its_own(sshd, tmp_path: Path) -> None:
    url, keys = sshd()
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(tmp_path, url=url, path="hello")
    other = tmp_path / "other"
    other.write_text((keys / "known_hosts").read_text().replace("AAAA", "AAAB", 1))
    command = f"ssh -i {keys}/user -o UserKnownHostsFile={other} -o StrictHostKeyChecking=yes"
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        await fetched(tmp_path, {"GIT_SSH_COMMAND": command}, [keys / "user", other], url=url, path="hello")
