"""Who may do what, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from time import monotonic, time
from typing import NamedTuple

from martlet.errors import Forbidden, RateLimited, Unauthenticated
from martlet.gateway.buckets import Buckets, fingerprint
from martlet.gateway.quotas import Quotas
from martlet.model import ApiKey, Scope
from martlet.storage.registry import RegistryView
from martlet.units import NO_LIMIT, EventRate

AWS_CREDENTIAL = b"AWS4-HMAC-SHA256 Credential="
"""How AWS's clients begin: the key is their access key id. What they sign is not looked at, as with a bearer."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever holds a key, in the form that admission asks it."""

    id: str
    invoke: bool
    manage: bool
    admin: bool
    functions: frozenset[str] | None
    rate: EventRate
    bucket: int
    trusted: bool
    expires: float | None

    @classmethod
    def of(cls, key: ApiKey, secret_hash: str) -> Principal:
        """Makes the principal of a key, as one of its secrets proves it."""
        ends = [end for end in (key.expires, key.hashes[secret_hash]) if end is not None]
        return cls(
            id=key.id,
            invoke=Scope.INVOKE in key.scopes,
            manage=Scope.MANAGE in key.scopes,
            admin=Scope.ADMIN in key.scopes,
            functions=None if key.functions is None else frozenset(key.functions),
            rate=key.rate_limit,
            bucket=fingerprint("key", key.id),
            trusted=key.trusted,
            expires=min(ends, default=None),
        )

    def may_touch(self, function: str) -> None:
        """Raises `Forbidden` if the key is limited to other functions."""
        if self.functions is not None and function not in self.functions:
            raise Forbidden(f"this key is limited to other functions than {function!r}")


class Toll(NamedTuple):
    """A token that a request takes: of which bucket, filled at which rate, and what is said when there is none.

    A limit that is ``shared`` holds for all gateways of the cluster together.
    """

    bucket: int
    rate: EventRate
    complaint: str
    shared: bool = False


class Admission:
    """Checks keys and takes tokens. Secrets are looked up by their sha256, so the time a look-up takes says nothing
    of how much of a guess was right. Guessing 256 random bits is hopeless; the limit on wrong keys keeps it quiet.

    Args:
        view: where keys are looked up.
        buckets: shared with the other lanes.
        per_client: requests a client address may send, unless its key is trusted.
        wrong_keys: wrong keys a client address may send.
        quotas: this gateway's parts of the limits of keys and functions; None: it is the only one.
    """

    def __init__(
        self,
        view: RegistryView,
        buckets: Buckets,
        per_client: EventRate,
        wrong_keys: EventRate,
        quotas: Quotas | None = None,
    ) -> None:
        self._view = view
        self._buckets = buckets
        self._per_client = per_client
        self._wrong_keys = wrong_keys
        self._quotas = quotas
        self._principals: dict[bytes, Principal] = {}
        self._clients: dict[str, int] = {}
        view.on_change.append(self._forget)

    def principal(self, authorization: bytes | None) -> Principal | None:
        """Returns whose key an ``Authorization`` header carries, or None where it is no valid key of ours."""
        given = None if authorization is None else _key_in(authorization)
        if given is None:
            return None
        digest = sha256(given).digest()
        principal = self._principals.get(digest)
        if principal is None:
            key = self._view.keys.get(digest)
            if key is None:
                return None
            principal = self._principals[digest] = Principal.of(key, digest.hex())
        if principal.expires is not None and principal.expires <= time():
            return None
        return principal

    def authenticated(self, authorization: bytes | None, client: str) -> Principal:
        """Like `principal`, for requests that need one.

        Raises:
            Unauthenticated: there is no key, or it is unknown, expired or revoked.
            RateLimited: the client has tried too many wrong keys.
        """
        principal = self.principal(authorization)
        if principal is not None:
            return principal
        if authorization is None:
            raise Unauthenticated("send a key: Authorization: Bearer <key>")
        if self._wrong_keys.events:
            bucket = self._client_bucket(client) ^ 1
            self.charge((Toll(bucket, self._wrong_keys, "this client has sent too many wrong keys"),))
        if _key_in(authorization) is None:
            raise Unauthenticated("the Authorization header has no key: send Authorization: Bearer <key>")
        raise Unauthenticated("the key is unknown, expired or revoked")

    def tolls(
        self,
        key: Principal | None,
        client: str,
        bucket: int = 0,
        rate: EventRate = NO_LIMIT,
        *,
        trusted: bool = False,
    ) -> tuple[Toll, ...]:
        """Returns what a request has to pay.

        Args:
            key: whose key pays, or None.
            client: the address it comes from.
            bucket: the bucket of the function it is for.
            rate: what the function accepts.
            trusted: the client address does not pay.
        """
        tolls = []
        if key is not None:
            tolls.append(Toll(key.bucket, key.rate, "this key has been used for too many requests", True))
        if not trusted:
            bucket_of_client = self._client_bucket(client)
            tolls.append(Toll(bucket_of_client, self._per_client, "this client has sent too many requests"))
        tolls.append(Toll(bucket, rate, "this function has been sent too many requests", True))
        return tuple(toll for toll in tolls if toll.rate.events)

    def charge(self, tolls: tuple[Toll, ...]) -> None:
        """Takes a token for each toll. Raises `RateLimited`."""
        now = monotonic()
        take, quotas = self._buckets.take, self._quotas
        for bucket, rate, complaint, shared in tolls:
            part = quotas.part(bucket, rate, now) if shared and quotas is not None else 1.0
            wait = take(bucket, rate, now, part)
            if wait:
                allowed = f"{rate.events} in {rate.seconds} s are allowed"
                raise RateLimited(f"{complaint}: {allowed}", retry_after=wait)

    def _client_bucket(self, client: str) -> int:
        bucket = self._clients.get(client)
        if bucket is None:
            if len(self._clients) > 100_000:
                self._clients.clear()
            bucket = self._clients[client] = fingerprint("client", client)
        return bucket

    def _forget(self, kind: str, _name: str) -> None:
        if kind == "key":
            self._principals.clear()


def _key_in(authorization: bytes) -> bytes | None:
    """Returns the key that an ``Authorization`` header carries, as a bearer token or as the id of an AWS access key."""
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    if authorization.startswith(AWS_CREDENTIAL):
        return authorization[len(AWS_CREDENTIAL) :].partition(b"/")[0]
    return None
