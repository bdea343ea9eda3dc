import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from martlet.sandbox import channel
from tests.alone import alone

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "zygote"


@pytest.fixture
def pair(place: Path) -> Iterator[Pair]:
    """Both ends of a channel; the second blocks."""
    with channel.listen(place) as listener, channel.connect(place) as here, channel.accept(listener) as there:
        yield here, there


def test_a_message_arrives_with_its_descriptors(pair: Pair):
    here, there = pair
    reader, writer = os.pipe()
    with here, there:
        channel.send(here, {"op": "fork", "id": "a"}, [writer])
        received = channel.receive(there)

    assert received is not None
    message, (descriptor,) = received
    assert message == {"op": "fork", "id": "a"}
    os.write(descriptor, b"through the copy")
    assert os.read(reader, 100) == b"through the copy"
    for each in (reader, writer, descriptor):
        os.close(each)


def test_messages_do_not_run_into_each_other(pair: Pair):
    here, there = pair
    with here, there:
        channel.send(here, {"n": 1})
        channel.send(here, {"n": 2})

        assert [channel.receive(there), channel.receive(there)] == [({"n": 1}, []), ({"n": 2}, [])]


def test_the_end_of_the_other_side_is_heard(pair: Pair):
    here, there = pair
    here.close()
    with there:
        assert channel.receive(there) is None


def test_an_end_that_does_not_block_says_when_there_is_nothing(pair: Pair):
    here, there = pair
    there.setblocking(False)
    with here, there, pytest.raises(BlockingIOError):
        channel.receive(there)


def test_nobody_answers_where_the_listener_is_gone(place: Path):
    channel.listen(place).close()

    with pytest.raises(ConnectionRefusedError):
        channel.connect(place)


def test_a_listener_takes_the_place_of_one_that_is_gone(place: Path):
    channel.listen(place).close()

    with channel.listen(place), channel.connect(place):
        pass


@pytest.mark.root
def test_another_user_is_refused_by_either_end():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = Path(folder, "zygote")
        with channel.listen(place) as listener:
            place.chmod(0o777)

            assert alone(_connect_as_somebody_else, str(place)) == "the other end of the channel is user 0"
            with pytest.raises(PermissionError, match="user 1000"):
                channel.accept(listener)


def _connect_as_somebody_else(place: str) -> str:
    os.setresuid(1000, 1000, 1000)
    try:
        channel.connect(Path(place))
    except PermissionError as error:
        return str(error)
    return "connected"
