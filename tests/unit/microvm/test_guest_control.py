"""What the warden of a microVM and its agent say to each other, and what neither of them would say."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from martlet.microvm import folders
from martlet.microvm.control import Control, Nonsense


class Ends:
    """Both ends of a channel; ``theirs`` is written to as it is."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self.control, self.other = Control(self._ours.fileno()), Control(self.theirs.fileno())

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def test_messages_come_one_by_one_however_they_are_cut(ends: Ends):
    ends.theirs.sendall(b'{"event": "equipped"}\n{"event": "ex')

    assert ends.control.receive() == {"event": "equipped"}
    assert ends.control.hear() is None
    ends.theirs.sendall(b'ited", "code": 3}\n')
    assert ends.control.hear() == {"event": "exited", "code": 3}


def test_what_came_with_something_else_is_heard_without_a_further_word(ends: Ends):
    ends.theirs.sendall(b'{"event": "equipped"}\n{"event": "exited"}\n')
    ends.control.receive()

    assert ends.control.hear() == {"event": "exited"}
    assert ends.control.hear() is None


@pytest.mark.parametrize(
    "said", [b"\n", b"nonsense\n", b"[]\n", b"\xff\n", b"[" * 60_000 + b"\n", b"x" * 70_000]
)
def test_nonsense_is_known_and_is_not_waited_for(ends: Ends, said: bytes):
    ends.theirs.sendall(said)

    with pytest.raises(Nonsense):
        ends.control.receive()


def test_an_end_is_told_from_silence(ends: Ends):
    assert ends.control.hear() is None
    ends.theirs.shutdown(socket.SHUT_WR)

    with pytest.raises(EOFError):
        ends.control.hear()


def test_a_folder_comes_as_it_is_and_so_does_what_follows(ends: Ends, tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True)
    target.mkdir()
    content = os.urandom(200_000)
    (source / "inner/file").write_bytes(content)
    (source / "link").symlink_to("inner/file")

    def send() -> None:
        ends.other.send_folder(folders.pack(str(source)))
        ends.other.send(event="equipped")

    sender = threading.Thread(target=send)
    sender.start()
    ends.control.receive_folder(str(target))

    assert ends.control.receive() == {"event": "equipped"}
    sender.join()
    assert (target / "link").readlink() == Path("inner/file")
    assert (target / "link").read_bytes() == content
