"""HTTP/1.1 as h11 reads it, to hold our own reading against."""

from typing import NamedTuple

import h11

MAX_HEAD = 1 << 20


class Request(NamedTuple):
    """What matters of a request."""

    method: bytes
    target: bytes
    body: bytes


class Response(NamedTuple):
    """What matters of a response; ``whole`` is False where the connection ended in the middle of it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool

    def header(self, name: bytes) -> bytes | None:
        """Returns the value of a header, None if it is not there."""
        return dict(self.headers).get(name)


def read_requests(data: bytes) -> list[Request]:
    """Returns the requests of a client that sends ``data`` and ends; as far as they are whole and valid."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    connection.receive_data(data)
    found: list[Request] = []
    try:
        while isinstance(head := connection.next_event(), h11.Request):
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                return found
            found.append(Request(head.method, head.target, body))
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except h11.ProtocolError:
        pass
    return found


def read_responses(data: bytes, methods: list[bytes], ended: bool) -> list[Response]:
    """Returns what a client reads that has sent requests with these methods.

    Args:
        data: all that came.
        methods: of the requests; where there are more responses, it must have been a GET.
        ended: the connection was closed after ``data``.

    Raises:
        AssertionError: this is not HTTP/1.1.
    """
    found: list[Response] = []
    asked = iter(methods)
    while data:
        method = next(asked, b"GET")
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        connection.send(h11.EndOfMessage())
        response, rest = _read_response(connection, data, ended)
        if response is None:
            return found
        found.append(response)
        if not response.whole or response.header(b"connection") == b"close":
            assert not rest, f"something follows the last response: {rest!r}"
        data = rest
    return found


def _read_response(connection: h11.Connection, data: bytes, ended: bool) -> tuple[Response | None, bytes]:
    connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    head: h11.Response | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Response():
                    head = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert head is not None
                    return Response(
                        head.status_code, list(head.headers), body, True
                    ), connection.trailing_data[0]
                case h11.InformationalResponse(status_code=code):
                    assert code == 100, f"{code} is passed on"
                case h11.NEED_DATA:
                    if head is None:
                        return None, b""
                    return Response(head.status_code, list(head.headers), body, False), b""
                case _:
                    raise AssertionError(f"unexpected {event!r}")
    except h11.RemoteProtocolError as error:
        if ended and head is None and "ConnectionClosed" in str(error):
            return None, b""
        if ended and head is not None and "closed connection" in str(error):  # cut off, as a client notices
            return Response(head.status_code, list(head.headers), body, False), b""
        raise AssertionError(f"not a valid response: {error}: {data[:300]!r}") from error
