"""A client that sends the same bytes again on one connection is answered by what holds now, not by what held before."""

import re
import socket
from contextlib import closing

import pytest

from tests.system.conftest import until


class Repeater:
    """One kept connection that sends one request again and again."""

    def __init__(self, platform, path, key):
        self._socket = socket.create_connection(("127.0.0.1", platform.port), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\ncontent-length: 4\r\n\r\n"
        self._head = head.encode()

    def ask(self, body=b"same"):
        """Sends the request; returns status, header block and body of the answer."""
        self._socket.sendall(self._head + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, answer = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        while len(answer) < length:
            answer += self._socket.recv(65536)
        return int(head.split()[1]), head.decode(), answer.decode()

    def close(self):
        self._socket.close()


@pytest.fixture
def repeating(platform):
    """Returns what opens a connection that repeats itself; it has been answered twice already."""
    opened = []

    def repeat(path, key=platform.key):
        repeater = Repeater(platform, path, key)
        opened.append(repeater)
        assert [repeater.ask()[0] for _ in range(2)] == [200, 200]
        return repeater

    yield repeat
    for repeater in opened:
        repeater.close()


def test_each_body_and_each_request_id_is_its_own(platform, repeating):
    platform.deploy("mirrors", "def handle(r):\n    return f'{r.get_text()} {r.request_id}'\n")
    client = repeating("/invoke/mirrors")
    ids = set()
    for body in (b"one1", b"two2", b"3333"):
        _, head, answer = client.ask(body)
        text, seen_id = answer.split()
        assert (text, f"x-request-id: {seen_id}" in head) == (body.decode(), True)
        ids.add(seen_id)
    assert len(ids) == 3


def test_a_new_revision_answers_the_next_request(platform, repeating):
    platform.deploy("changes", "def handle(r):\n    return 'old'\n")
    client = repeating("/invoke/changes")
    platform.deploy("changes", "def handle(r):\n    return 'new'\n")
    assert client.ask()[2] == "new"
    platform.client.delete("/functions/changes")
    assert client.ask()[0] == 404


def test_a_key_that_was_revoked_or_has_expired_is_refused(platform, repeating):
    platform.deploy("guarded", "def handle(r):\n    return 'in'\n")
    made = platform.admin.post("/keys", json={"name": "k", "scopes": ["invoke"]}).json()
    client = repeating("/invoke/guarded", made["secret"])
    rotated = platform.admin.post(f"/keys/{made['id']}/rotate", json={"overlap": 1}).json()
    with closing(Repeater(platform, "/invoke/guarded", rotated["secret"])) as other:
        assert other.ask()[0] == 200
        # The old secret ends with its overlap, though nothing changes in the store then.
        until(lambda: client.ask()[0] == 401, why="the old secret works on")
        platform.admin.delete(f"/keys/{made['id']}")
        assert other.ask()[0] == 401


def test_limits_count_every_repetition(platform, repeating):
    platform.deploy("bounded", "def handle(r):\n    return 'in'\n", rate_limit="5/h")
    client = repeating("/invoke/bounded")
    assert [client.ask()[0] for _ in range(4)] == [200, 200, 200, 429]


def test_an_alias_goes_on_to_share_its_requests(platform, repeating):
    for number in (1, 2):
        platform.deploy("shared", f"def handle(r):\n    return '{number}'\n")
    platform.client.put("/functions/shared/aliases/both", json={"weights": {"1": 50, "2": 50}})
    client = repeating("/invoke/shared@both")
    assert {client.ask()[2] for _ in range(60)} == {"1", "2"}
