"""WebSocket connections to an ASGI application on the Python runtime."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from tests.contract.python_shim import SECONDS, Shim, send_until_refused

PREAMBLE = (
    "import asyncio, json\n"
    "async def app(scope, receive, send):\n"
    "    if scope['type'] != 'websocket':\n        raise NotImplementedError\n"
    "    event = await receive()\n"
    "    assert event == {'type': 'websocket.connect'}\n"
)
ECHO = PREAMBLE + (
    "    await send({'type': 'websocket.accept'})\n"
    "    while (event := await receive())['type'] == 'websocket.receive':\n"
    "        await send({'type': 'websocket.send', 'text': event.get('text'), 'bytes': event.get('bytes')})\n"
    "    print(event['code'], event['reason'])\n"
)
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\1\2\3\4"


def app(body: str) -> str:
    return PREAMBLE + "".join(f"    {line}\n" for line in body.splitlines())


def connect(shim: Shim, target: str = "/", **options: object) -> ClientConnection:
    options = {"open_timeout": SECONDS, "close_timeout": SECONDS} | options
    return unix_connect(str(shim.path), f"ws://localhost{target}", compression=None, **options)


@contextmanager
def opened(shim: Shim) -> Iterator[socket.socket]:
    """A connection after its handshake, to write frames to by hand."""
    with shim.raw() as connection:
        connection.sendall(HANDSHAKE)
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
        yield connection


def frame(first: int, payload: bytes, masked: bool = True) -> bytes:
    assert len(payload) < 126
    if not masked:
        return bytes([first, len(payload)]) + payload
    return bytes([first, 0x80 | len(payload)]) + MASK + bytes(b ^ MASK[n % 4] for n, b in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_text_and_bytes_of_any_size_come_back(shim: Shim, size: int) -> None:
    shim.deploy(ECHO, "app")
    with connect(shim, max_size=None) as client:
        for message in ("\u00e9" * (size // 2), bytes(size)):
            client.send(message)
            assert client.recv(SECONDS) == message


def test_the_scope_and_the_handshake(shim: Shim) -> None:
    shim.deploy(
        app(
            "await send({'type': 'websocket.accept', 'subprotocol': scope['subprotocols'][1],\n"
            "            'headers': [(b'x-a', b'b')]})\n"
            "await send({'type': 'websocket.send', 'text': json.dumps([scope['path'], scope['scheme']])})"
        ),
        "app",
    )
    with connect(shim, "/chat", subprotocols=["one", "two"]) as client:
        assert client.recv(SECONDS) == '["/chat", "ws"]'
        assert client.subprotocol == "two"
        assert client.response is not None
        assert client.response.headers["x-a"] == "b"


def test_a_ping_is_answered_even_while_the_application_does_not_listen(shim: Shim) -> None:
    shim.deploy(app("await send({'type': 'websocket.accept'})\nawait asyncio.sleep(60)"), "app")
    with connect(shim, close_timeout=0.1) as client:  # nor would it hear of a close
        assert client.ping(b"abc").wait(SECONDS)


def test_fragments_are_put_together_around_a_ping(shim: Shim) -> None:
    shim.deploy(ECHO, "app")
    with opened(shim) as connection:
        parts = frame(0x01, b"one ") + frame(0x89, b"p") + frame(0x00, b"two ") + frame(0x80, b"three")
        for byte in parts:
            connection.sendall(bytes([byte]))
        received = b""
        while len(received) < 3 + 15:
            received += connection.recv(100)
        assert received == frame(0x8A, b"p", masked=False) + frame(0x81, b"one two three", masked=False)


def test_the_clients_close_is_answered_and_told_to_the_application(shim: Shim) -> None:
    shim.deploy(ECHO, "app")
    with connect(shim) as client:
        client.close(4001, "bye")
    assert shim.logged(lambda f: f["s"] == "stdout")["m"] == "4001 bye"


def test_the_applications_close_is_told_to_the_client(shim: Shim) -> None:
    shim.deploy(
        app(
            "await send({'type': 'websocket.accept'})\n"
            "await send({'type': 'websocket.close', 'code': 4002, 'reason': 'no'})"
        ),
        "app",
    )
    with connect(shim) as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "no")


def test_a_client_that_vanishes_is_told_to_the_application(shim: Shim) -> None:
    shim.deploy(ECHO, "app")
    with opened(shim):
        pass
    assert shim.logged(lambda f: f["s"] == "stdout")["m"].startswith("1006")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0x81, b"x", masked=False), 1002),
        (frame(0xC1, b"x"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x80, b"continued and never begun"), 1002),
        (frame(0x01, b"begun") + frame(0x81, b"again"), 1002),
        (frame(0x09, b"a ping in pieces"), 1002),
        (frame(0x88, b"x"), 1002),
        (frame(0x88, (1005).to_bytes(2)), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x02, bytes(100)) + frame(0x80, bytes(100)), 1009),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_why(shim: Shim, sent: bytes, code: int) -> None:
    shim.deploy(ECHO, "app", max_body=150)
    with opened(shim) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert answer[0] == 0x88
    assert int.from_bytes(answer[2:4]) == code
    shim.logged(lambda f: f["m"].startswith(str(code)))


def test_an_application_may_refuse(shim: Shim) -> None:
    shim.deploy(app("await send({'type': 'websocket.close'})"), "app")
    with pytest.raises(InvalidStatus) as refused:
        connect(shim)
    assert refused.value.response.status_code == 403


def test_an_application_may_refuse_with_a_response_of_its_own(shim: Shim) -> None:
    shim.deploy(
        app(
            "assert 'websocket.http.response' in scope['extensions']\n"
            "await send({'type': 'websocket.http.response.start', 'status': 401, 'headers': []})\n"
            "await send({'type': 'websocket.http.response.body', 'body': b'who are you?'})"
        ),
        "app",
    )
    with pytest.raises(InvalidStatus) as refused:
        connect(shim)
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"who are you?")


def test_an_application_that_raises_first_is_a_500(shim: Shim) -> None:
    shim.deploy(app("raise KeyError('x')"), "app")
    with pytest.raises(InvalidStatus) as refused:
        connect(shim)
    assert refused.value.response.status_code == 500
    assert refused.value.response.headers["x-martlet-error"] == "KeyError"


def test_an_application_that_raises_later_closes_with_1011(shim: Shim) -> None:
    shim.deploy(app("await send({'type': 'websocket.accept'})\nraise KeyError('x')"), "app")
    with connect(shim) as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert "KeyError" in shim.logged(lambda f: f["s"] == "error")["m"]


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"version: 13", b"version: 8", b"426"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", b"400"),
    ],
)
def test_a_handshake_that_is_not_proper_is_refused(shim: Shim, old: bytes, new: bytes, status: bytes) -> None:
    shim.deploy(ECHO, "app")
    with shim.raw() as connection:
        connection.sendall(HANDSHAKE.replace(old, new))
        assert connection.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_messages_wait_for_an_application_that_is_slow(shim: Shim) -> None:
    gate = shim.code / "gate"
    shim.deploy(
        app(
            "import pathlib\nawait send({'type': 'websocket.accept'})\n"
            f"while not pathlib.Path('{gate}').exists():\n    await asyncio.sleep(0.002)\n"
            "for n in range(300):\n    await receive()\n"
            "await send({'type': 'websocket.send', 'text': 'all'})"
        ),
        "app",
    )
    with opened(shim) as connection:
        message = b"\x82\xff" + (65536).to_bytes(8) + MASK + bytes(65536)
        whole = message * 300
        sent = send_until_refused(connection, whole)
        assert sent < len(whole) // 2
        gate.touch()
        connection.sendall(whole[sent:])
        assert connection.recv(100).startswith(frame(0x81, b"all", masked=False))


def test_the_end_of_the_instance_closes_with_1012(shim: Shim) -> None:
    shim.deploy(ECHO, "app")
    with connect(shim) as client:
        shim.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert shim.process.wait(SECONDS) == 0
