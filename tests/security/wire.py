"""A client that sends bytes as they are and reads responses strictly, to see what really travels."""

import socket
from types import TracebackType

PATIENCE = 60


class Cut(Exception):
    """The connection ended before the response did."""


class Wire:
    """One connection to the public port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends all of it; a peer that has closed already may not want it."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """Reads one response, framed by length or chunks. Raises `Cut`."""
        status = int(self._line().split(b" ", 2)[1])
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._line(), 16):
                body += self._exactly(size)
                self._line()
            self._line()
            return status, headers, body
        return status, headers, self._exactly(int(headers.get("content-length", 0)))

    def rest(self) -> bytes:
        """Reads until the peer closes, or resets."""
        pieces = []
        try:
            while piece := self._file.read1():
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def _line(self) -> bytes:
        try:
            line = self._file.readline()
        except ConnectionResetError as error:
            raise Cut from error
        if not line.endswith(b"\r\n"):
            raise Cut
        return line[:-2]

    def _exactly(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except ConnectionResetError as error:
            raise Cut from error
        if len(data) < size:
            raise Cut
        return data


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    """Returns a request with the development key."""
    lines = [
        b"POST %b HTTP/1.1" % path.encode(),
        b"host: localhost",
        b"authorization: Bearer demo-key",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
