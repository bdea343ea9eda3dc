"""One Firecracker, by who has started it and waits for each answer: in the sandbox that its machine runs in.

It plays scripts: documents that `script` has made ahead. What it adds itself is the guest's metadata, because a
function's variables are known only when a clone gets its code. It imports the standard library only; `client` is the
platform's own, for all that the API has.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

from martlet.microvm.firecracker.errors import BadAnswer, NoAnswer, Refused, fault_of
from martlet.microvm.firecracker.mmds import Metadata

Line = tuple[str, str, Mapping[str, Any]]
"""Method, path and document of a request."""
Script = Sequence[Line]
_DONE = 204
_RETRY_SECONDS = 0.002
_MOST = 64 * 1024
_LONGEST_GREETING = 32


class Monitor:
    """One Firecracker with one machine.

    Every method raises `Refused` when Firecracker says no, `NoAnswer` when nobody answers in time, and `BadAnswer` when
    what comes makes no sense.

    Args:
        api: its socket.
        vsock: that of its guest.
        patience: seconds that each answer may take, and its start.
    """

    def __init__(self, api: str, vsock: str, patience: float) -> None:
        self._api, self._vsock = api, vsock
        self._patience = patience

    def play(self, script: Script) -> None:
        """Says what is in a script, in its order."""
        self._await()
        for method, path, document in script:
            self._say(method, path, document)

    def pause(self) -> None:
        """Stops the guest."""
        self._say("PATCH", "/vm", {"state": "Paused"})

    def resume(self) -> None:
        """Lets the guest go on."""
        self._say("PATCH", "/vm", {"state": "Resumed"})

    def tell(self, environment: Mapping[str, str]) -> str:
        """Puts a function's variables where its guest reads them, and nobody else.

        Returns:
            The boot token that the guest must have to take them: another one each time.

        Raises:
            MetadataError: they are too many, or no text.
        """
        token = secrets.token_urlsafe(24)
        self._say("PUT", "/mmds", Metadata(token, secrets=environment).store())
        return token

    def connect(self, port: int) -> socket.socket:
        """Returns a connection to a port of the guest, once somebody listens there."""
        deadline = time.monotonic() + self._patience
        while True:
            connection = self._call_guest(port)
            if connection is not None:
                return connection
            if time.monotonic() > deadline:
                raise NoAnswer(f"nobody listens at port {port} of the guest within {self._patience:g} s")
            time.sleep(_RETRY_SECONDS)

    def _call_guest(self, port: int) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._patience)
        said = b""
        try:
            connection.connect(self._vsock)
            connection.sendall(b"CONNECT %d\n" % port)
            while not said.endswith(b"\n") and len(said) < _LONGEST_GREETING:
                byte = connection.recv(1)  # all that follows the line is the guest's
                if not byte:
                    break
                said += byte
        except OSError:
            said = b""
        if not said.endswith(b"\n"):
            connection.close()
            return None
        if not said.startswith(b"OK "):
            connection.close()
            raise BadAnswer(f"the guest's socket answered {said!r} in place of OK and a port")
        connection.settimeout(None)
        return connection

    def _await(self) -> None:
        """Returns once its socket takes connections."""
        deadline = time.monotonic() + self._patience
        while True:
            with closing(socket.socket(socket.AF_UNIX)) as attempt:
                try:
                    attempt.connect(self._api)
                    return
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise NoAnswer(
                            f"Firecracker has not started within {self._patience:g} s: {error}"
                        ) from None
            time.sleep(_RETRY_SECONDS)

    def _say(self, method: str, path: str, document: Mapping[str, Any]) -> None:
        call = f"{method} {path}"
        try:
            with closing(_Connection(self._api, self._patience)) as connection:
                headers = {"content-type": "application/json", "accept": "application/json"}
                connection.request(method, path, json.dumps(document), headers)
                answer = connection.getresponse()
                said = answer.read(_MOST)
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"Firecracker did not answer {call}: {error or type(error).__name__}") from None
        if answer.status != _DONE:
            raise Refused(call, answer.status, fault_of(said))


class _Connection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
