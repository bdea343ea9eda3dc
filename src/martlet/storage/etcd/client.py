"""A client of etcd's JSON gateway: several members, passwords, TLS, and an end to every wait."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson

from martlet.storage.etcd.answers import Code, Messages, Refused, Unanswered, reason, refused
from martlet.storage.store import StoreError
from martlet.store_address import PASSWORD_VARIABLE, SYSTEM_CA, EtcdAddress

CALL_SECONDS = 5.0
"""How long a call may take over all members, before the store counts as out of reach."""
READ_SECONDS = 2.0
"""How long one member may take for what may be asked again; then the next one is asked."""
CONNECT_SECONDS = 1.0
"""How long a member may take to accept a connection, and then to agree on TLS."""
PAUSE = 0.1
"""Seconds between two rounds over the members."""

_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
)
"""A connection whose other end is gone without a word ends within seconds, also where nothing is sent."""


class Client:
    """See the module. It belongs to one event loop.

    The member that answered last is asked first; one that does not answer is left for the next.

    Raises:
        StoreError: a file of certificates cannot be used.
    """

    def __init__(self, address: EtcdAddress) -> None:
        self._address = address
        self._scheme = "http" if address.ca is None else "https"
        self._members = list(address.endpoints)
        self._token: str | None = None
        self._authenticating = asyncio.Lock()
        self._closing = asyncio.Event()
        tls = _tls(address)
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                verify=tls if tls is not None else False,
                socket_options=_SOCKET_OPTIONS,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=4),
            ),
            trust_env=False,
        )

    @property
    def member(self) -> str:
        """The member that is asked first."""
        return self._members[0]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    async def call(self, method: str, document: Mapping[str, Any], *, repeatable: bool) -> dict[str, Any]:
        """Asks one member after the other until one answers, for `CALL_SECONDS` at most.

        Args:
            method: as ``kv/range``.
            document: the request.
            repeatable: it may be done twice. What is not is asked of another member only if the first one
                cannot have done it.

        Raises:
            Refused: an error that asking again would not mend.
            StoreError: no answer, or the client is closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CALL_SECONDS
        asked = 0
        reason: Exception | None = None
        while True:
            self._check_open()
            member = self.member
            left = deadline - loop.time()
            try:
                return await self.ask(
                    member, method, document, min(left, READ_SECONDS) if repeatable else left
                )
            except (Refused, Unanswered) as error:
                if (
                    reason is None or left >= READ_SECONDS
                ):  # who had no time to answer says less than who was before
                    reason = error
                if isinstance(error, Unanswered) or error.later:
                    self.leave(member)
                if not _again(error, repeatable):
                    raise
                asked += 1
                pause = PAUSE if asked % len(self._members) == 0 else 0
                if loop.time() + pause >= deadline:
                    raise StoreError(f"etcd is out of reach: {reason}") from reason
                await asyncio.sleep(pause)

    async def ask(
        self, member: str, method: str, document: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Asks one member once, with a new token where the old one is no longer taken.

        Raises:
            Refused: it answers with an error.
            Unanswered: it does not answer within ``timeout`` seconds.
        """
        sent = False
        try:
            async with asyncio.timeout(timeout):
                token = await self._login(member, None, timeout)
                try:
                    sent = True
                    return await self._post(member, method, document, token, timeout)
                except Refused as error:
                    if not (error.stale_token and token):
                        raise
                    sent = False
                    token = await self._login(member, token, timeout)
                    sent = True
                    return await self._post(member, method, document, token, timeout)
        except (
            OSError,
            httpx2.HTTPError,
            ValueError,
        ) as error:  # OSError: also of TLS, and time that is over
            self._check_open()
            unsent = not sent or isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise Unanswered(f"{member}: {reason(error)}", not unsent) from error

    @asynccontextmanager
    async def stream(self, member: str, method: str, document: Mapping[str, Any]) -> AsyncIterator[Messages]:
        """Sends a request to one member and gives the messages of its answer as they come.

        Raises:
            Refused: it answers with an error.
            Unanswered: it does not answer.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                token = await self._login(member, None, READ_SECONDS)
                request = self._request(member, method, document, token, READ_SECONDS)
                answer = await self._http.send(request, stream=True)
                if answer.status_code != 200:
                    raise refused(await answer.aread())
        except (OSError, httpx2.HTTPError) as error:
            raise Unanswered(f"{member}: {reason(error)}", True) from error
        messages = Messages(member, answer, self._closing)
        try:
            yield messages
        finally:
            await messages.close()

    def leave(self, member: str) -> None:
        """Lets others be asked before this one."""
        if self._members[0] == member:
            self._members.append(self._members.pop(0))

    def forget_token(self) -> None:
        """Makes the next request ask for a token anew."""
        self._token = None

    async def close(self) -> None:
        """Ends every stream and lets go of the connections."""
        self._closing.set()
        await self._http.aclose()

    def _check_open(self) -> None:
        if self.closed:
            raise StoreError("the store is closed")

    async def _login(self, member: str, refused: str | None, timeout: float) -> str | None:
        """Returns a token that is not the ``refused`` one; None where etcd wants none."""
        address = self._address
        if address.user is None:
            return None
        async with self._authenticating:
            if self._token is None or self._token == refused:
                document = {"name": address.user, "password": self._password()}
                try:
                    answer = await self._post(member, "auth/authenticate", document, None, timeout)
                except Refused as error:
                    if error.code != Code.FAILED_PRECONDITION:
                        raise
                    return None  # it has been told to let everybody in
                self._token = answer["token"]
            return self._token

    def _password(self) -> str:
        path = self._address.password_file
        if path is None:
            if self._address.password is None:
                raise StoreError(
                    f"system.store: the user {self._address.user!r} has no password: set {PASSWORD_VARIABLE}, add "
                    "?password_file=FILE, or write USER:PASSWORD@HOST"
                )
            return self._address.password
        try:
            return path.read_text().rstrip("\n")
        except (OSError, ValueError) as error:
            raise StoreError(f"system.store: cannot read the password file {path}: {error}") from error

    async def _post(
        self, member: str, method: str, document: Mapping[str, Any], token: str | None, timeout: float
    ) -> dict[str, Any]:
        answer = await self._http.send(self._request(member, method, document, token, timeout))
        if answer.status_code != 200:
            raise refused(answer.content)
        found: dict[str, Any] = orjson.loads(answer.content.partition(b"\n")[0])
        return found

    def _request(
        self, member: str, method: str, document: Mapping[str, Any], token: str | None, timeout: float
    ) -> httpx2.Request:
        self._check_open()
        # A member that has lost its leader says so at once, instead of waiting for one.
        headers = {"content-type": "application/json", "grpc-metadata-hasleader": "true"}
        if token is not None:
            headers["authorization"] = token
        url = f"{self._scheme}://{member}/v3/{method}"
        # Waiting for a connection ends by itself, because one that is cut off midway would be left open; the rest of
        # the time is the caller's to bound.
        limits = httpx2.Timeout(None, connect=min(CONNECT_SECONDS, timeout / 2))
        return self._http.build_request(
            "POST", url, content=orjson.dumps(document), headers=headers, timeout=limits
        )


def _again(error: Refused | Unanswered, repeatable: bool) -> bool:
    """Returns whether a request that failed so may be sent again."""
    if isinstance(error, Unanswered):
        return repeatable or not error.sent
    return error.not_done or (repeatable and error.later)


def _tls(address: EtcdAddress) -> ssl.SSLContext | None:
    if address.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=None if address.ca == SYSTEM_CA else address.ca)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (address.ca, address.cert, address.key) if file is not None)
        raise StoreError(f"system.store: cannot use the certificates {files}: {error}") from error
    return context
