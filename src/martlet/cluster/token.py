"""Tokens with which a machine joins a cluster.

A token is a secret that both sides know and that never travels: the machine that joins signs its request with it, and
the one that holds the authority its answer. Nothing else of the two is secret, so that they may go over plain HTTP.
The authority keeps no list of tokens: it derives the secret again from what a request says of its token.

    martlet-1.<expiry, seconds since the epoch>.<random>.<secret>
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from time import time
from typing import NamedTuple

from martlet.errors import Invalid, Unauthenticated

PREFIX = "martlet-1"
DEFAULT_LIFE = 3600.0


class Token(NamedTuple):
    """See the module. ``name`` may be known to everybody; it says when the token expires."""

    name: str
    secret: str

    @classmethod
    def new(cls, authority_secret: bytes, life: float = DEFAULT_LIFE) -> Token:
        """Makes a token that is good for ``life`` seconds."""
        return cls.named(f"{int(time() + life)}.{secrets.token_hex(8)}", authority_secret)

    @classmethod
    def named(cls, name: str, authority_secret: bytes) -> Token:
        """Returns the token of a name, as its authority knows it."""
        key = hmac.digest(authority_secret, b"martlet join token", sha256)
        return cls(name, hmac.digest(key, name.encode(), sha256).hex())

    @classmethod
    def parse(cls, text: str) -> Token:
        """Reads what ``str`` writes. Raises `Invalid`."""
        prefix, *parts = text.strip().split(".")
        if prefix != PREFIX or len(parts) != 3 or not all(part.isalnum() for part in parts):
            raise Invalid("token: write what `martlet cluster token` has printed", field="token")
        return cls(f"{parts[0]}.{parts[1]}", parts[2])

    def sign(self, *content: bytes) -> str:
        """Returns what proves that who sends ``content`` has the token."""
        framed = b"".join(b"%d:%b" % (len(each), each) for each in content)
        return hmac.digest(self.secret.encode(), framed, sha256).hex()

    def prove(self, signature: str, *content: bytes) -> None:
        """Checks such a proof. Raises `Unauthenticated`."""
        if not hmac.compare_digest(signature.encode(), self.sign(*content).encode()):
            raise Unauthenticated("the token is not one of this cluster")

    def check(self, signature: str, *content: bytes) -> None:
        """Checks such a proof, and that the token is still good by the clock here. Raises `Unauthenticated`."""
        self.prove(signature, *content)
        if int(self.name.partition(".")[0]) < time():
            raise Unauthenticated("the token has expired: make another with `martlet cluster token`")

    def __str__(self) -> str:
        return f"{PREFIX}.{self.name}.{self.secret}"
