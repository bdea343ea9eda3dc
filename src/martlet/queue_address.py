"""Where queues are, as people write it: ``sqlite``, or ``redis://user:password@host:6379/0``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlencode

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, WithJsonSchema

from martlet.store_address import MASK, REVEAL

SQLITE: Literal["sqlite"] = "sqlite"
"""The queues of one machine, in its data folder."""

DEFAULT_PORT = 6379
QUEUE_PASSWORD_VARIABLE = "FAAS_QUEUE_PASSWORD"  # noqa: S105

_URL = re.compile(
    r"(?P<scheme>rediss?)://(?:(?P<user>[^@:/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[0-9]{0,4}))?(?:\?ca=(?P<ca>/[^?#&]+))?"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A database of a Redis, all of it ours.

    Attributes:
        endpoint: its ``host:port``.
        database: its number.
        tls: whether it is spoken to by TLS.
        ca: a file of certificates that its own is checked with; None is the authorities of this machine.
        user: None is the default user of Redis.
        password: None where it asks for none.
    """

    endpoint: str
    database: int = 0
    tls: bool = False
    ca: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> RedisAddress:
        """Reads what `url` writes.

        Raises:
            ValueError: it is no such address; the message says what to write, and has no password in it.
        """
        found = _URL.fullmatch(text)
        if found is None or not 0 < int(found["port"] or DEFAULT_PORT) < 65536:
            raise ValueError(
                "write sqlite, redis://USER:PASSWORD@HOST:6379/0, or rediss://… for TLS, with ?ca=FILE"
            )
        if found["ca"] and found["scheme"] == "redis":
            raise ValueError("ca is for TLS: write rediss://…")
        return cls(
            endpoint=f"{found['host']}:{found['port'] or DEFAULT_PORT}",
            database=int(found["database"] or 0),
            tls=found["scheme"] == "rediss",
            ca=found["ca"] and unquote(found["ca"]),
            user=unquote(found["user"] or "") or None,
            password=unquote(found["password"] or "") or None,
        )

    def with_password(self, password: str) -> RedisAddress:
        """Returns the address with this password."""
        return replace(self, password=password)

    def url(self, password: str | None) -> str:
        """Returns it as it is written, with ``password`` in place of its own."""
        return self._url(password, "ca")

    def connection(self) -> str:
        """Returns it as the library of Redis reads it."""
        return self._url(self.password, "ssl_ca_certs")

    def _url(self, password: str | None, ca: str) -> str:
        user = quote(self.user or "", safe="")
        who = f"{user}:{quote(password, safe='*')}@" if password else f"{user}@" if user else ""
        options = f"?{urlencode({ca: self.ca}, safe='/')}" if self.ca else ""
        return f"redis{'s' if self.tls else ''}://{who}{self.endpoint}/{self.database}{options}"

    def __str__(self) -> str:
        """Writes it with the password masked."""
        return self.url(MASK if self.password else None)


def parse_queue(value: Any) -> RedisAddress | Literal["sqlite"]:
    """Reads ``system.queue``. Raises ValueError with what to write; no password is in the message."""
    if isinstance(value, RedisAddress):
        return value
    if value == SQLITE:
        return SQLITE
    return RedisAddress.parse(value if isinstance(value, str) else "")


def _write(queue: RedisAddress | str, info: SerializationInfo) -> str:
    if not isinstance(queue, RedisAddress) or info.context != REVEAL:
        return str(queue)
    return queue.url(queue.password)


QueueAddress = Annotated[
    RedisAddress | Literal["sqlite"],
    PlainValidator(parse_queue),
    PlainSerializer(_write, return_type=str),
    WithJsonSchema({"type": "string", "examples": [SQLITE, "redis://10.0.0.1:6379/0"]}),
]
