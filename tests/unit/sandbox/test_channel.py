import os

import pytest

from martlet.sandbox import channel


def test_a_message_arrives_with_its_descriptors():
    here, there = channel.pair()
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


def test_messages_do_not_run_into_each_other():
    here, there = channel.pair()
    with here, there:
        channel.send(here, {"n": 1})
        channel.send(here, {"n": 2})

        assert [channel.receive(there), channel.receive(there)] == [({"n": 1}, []), ({"n": 2}, [])]


def test_the_end_of_the_other_side_is_heard():
    here, there = channel.pair()
    here.close()
    with there:
        assert channel.receive(there) is None


def test_an_end_that_does_not_block_says_when_there_is_nothing():
    here, there = channel.pair()
    there.setblocking(False)
    with here, there, pytest.raises(BlockingIOError):
        channel.receive(there)
