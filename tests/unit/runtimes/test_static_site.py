"""The static runtime, run by itself: what it answers for the files of a folder."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from martlet import runtimes

RUNTIME = Path(runtimes.__file__).resolve().parent / "static"
SERVE = """
import socket, sys
sys.path.insert(0, sys.argv[1])
import _martlet_static
_martlet_static.warm()
_martlet_static.serve(socket.socket(fileno=int(sys.argv[2])))
"""


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)

    def ask(self, method, target, body=None, **headers):
        self.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.getresponse()
        answer.content = answer.read()
        return answer


@contextlib.contextmanager
def serving(folder: Path, socket_folder: Path, handler: str = "handle"):
    """Serves a folder; yields a connection, and how specialising was answered."""
    path = str(socket_folder / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", SERVE, RUNTIME, str(listener.fileno())], pass_fds=[listener.fileno()]
        )
    specification = {
        "function": "site",
        "revision": 1,
        "code": str(folder),
        "dependencies": None,
        "handler": handler,
        "environment": {},
        "concurrency": 1,
        "max_body": 1000,
    }
    connection = Connection(path)
    try:
        yield connection, connection.ask("POST", "/_martlet/specialise", json.dumps(specification))
    finally:
        connection.close()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def folder(tmp_path):
    """A small site."""
    folder = tmp_path / "site"
    (folder / "guide").mkdir(parents=True)
    (folder / "index.html").write_text("the index ✓")
    (folder / "about.html").write_text("about")
    (folder / "guide" / "index.html").write_text("the guide")
    (folder / "data.bin").write_bytes(bytes(range(256)))
    (folder / "empty.txt").touch()
    (folder / ".secret").write_text("hidden")
    (folder / "martlet.yaml").write_text("name: site")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to("../outside.txt")
    return folder


@pytest.fixture
def site(folder, tmp_path):
    with serving(folder, tmp_path) as (connection, answer):
        assert answer.status == 200, answer.content
        yield connection


@pytest.mark.parametrize(
    ("target", "content_type", "content"),
    [
        ("/", "text/html; charset=utf-8", "the index ✓".encode()),
        ("/index.html?v=1", "text/html; charset=utf-8", "the index ✓".encode()),
        ("/about", "text/html; charset=utf-8", b"about"),
        ("/%61bout.html", "text/html; charset=utf-8", b"about"),
        ("/guide/", "text/html; charset=utf-8", b"the guide"),
        ("/data.bin", "application/octet-stream", bytes(range(256))),
        ("/empty.txt", "text/plain; charset=utf-8", b""),
    ],
)
def test_a_path_means_a_file(site, target, content_type, content):
    answer = site.ask("GET", target)
    assert (answer.status, answer.headers["content-type"], answer.content) == (200, content_type, content)


def test_a_folder_is_redirected_to_its_slash(site):
    answer = site.ask("GET", "/guide")
    assert (answer.status, answer.headers["location"]) == (301, "guide/")


@pytest.mark.parametrize(
    "target",
    [
        "/missing.html",
        "/guide/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "//etc/passwd",
        "/link.txt",
        "/.secret",
        "/martlet.yaml",
        "/index.html%00",
        "/index.html/",
    ],
)
def test_what_is_not_to_be_seen_is_not_found(site, target):
    assert site.ask("GET", target).status == 404


def test_a_page_of_its_own_says_what_is_not_found(site, folder):
    (folder / "404.html").write_text("flown away")
    answer = site.ask("GET", "/missing")
    assert (answer.status, answer.content) == (404, b"flown away")


def test_head_has_the_length_and_no_body(site):
    answer = site.ask("HEAD", "/data.bin")
    assert (answer.status, answer.headers["content-length"], answer.content) == (200, "256", b"")


def test_other_methods_are_refused(site):
    answer = site.ask("POST", "/", "body")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_what_the_client_knows_is_not_sent_again(site):
    etag = site.ask("GET", "/data.bin").headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = site.ask("GET", "/data.bin", if_none_match=known)
        assert (answer.status, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert site.ask("GET", "/data.bin", if_none_match='"other"').status == 200
    assert site.ask("GET", "/about").headers["etag"] != etag


@pytest.mark.parametrize(
    ("wanted", "said", "first", "end"),
    [
        ("bytes=0-9", "bytes 0-9/256", 0, 10),
        ("bytes=250-", "bytes 250-255/256", 250, 256),
        ("bytes=-6", "bytes 250-255/256", 250, 256),
        ("bytes=200-999", "bytes 200-255/256", 200, 256),
    ],
)
def test_a_part_is_sent(site, wanted, said, first, end):
    answer = site.ask("GET", "/data.bin", range=wanted)
    assert (answer.status, answer.headers["content-range"]) == (206, said)
    assert answer.content == bytes(range(first, end))


def test_a_part_beyond_the_end_is_refused(site):
    answer = site.ask("GET", "/data.bin", range="bytes=256-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */256")


@pytest.mark.parametrize(
    "headers",
    [{"range": "bytes=0-1,4-5"}, {"range": "bytes=0-1", "if_range": '"other"'}, {"range": "lines=1-2"}],
)
def test_all_is_sent_where_a_part_cannot_be(site, headers):
    answer = site.ask("GET", "/data.bin", **headers)
    assert (answer.status, len(answer.content)) == (200, 256)


def test_a_single_page_answers_for_paths_that_mean_no_file(folder, tmp_path):
    with serving(folder, tmp_path, "index.html") as (site, _):
        assert site.ask("GET", "/cart/17").content == "the index ✓".encode()
        assert site.ask("GET", "/about").content == b"about"
        assert site.ask("GET", "/missing.js").status == 404


def test_a_single_page_must_be_there(folder, tmp_path):
    with serving(folder, tmp_path, "app.html") as (_, answer):
        assert answer.status == 422
        assert "'app.html' names no file" in json.loads(answer.content)["error"]["message"]
