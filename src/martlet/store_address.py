"""Where the store is, as people write it: ``sqlite``, or ``etcd://user:password@host:2379,host2/prefix?ca=/…``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, WithJsonSchema

SQLITE: Literal["sqlite"] = "sqlite"
"""The store of one machine, in its data folder."""

SYSTEM_CA = "system"
DEFAULT_PORT = 2379
DEFAULT_PREFIX = "/martlet"
MASK = "***"
PASSWORD_VARIABLE = "FAAS_STORE_PASSWORD"  # noqa: S105
REVEAL = {"secrets": True}
"""The context of serialisation in which a password is written as it is, instead of `MASK`."""

_SCHEME = "etcd://"
_URL = re.compile(
    r"etcd://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]+)(?P<prefix>/[^?#]*)?(?:\?(?P<options>[^#]*))?"
)
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)+")
_OPTIONS = ("ca", "cert", "key", "password_file")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """An etcd cluster, and the part of it that is ours.

    Attributes:
        endpoints: ``host:port`` of members, the one to be asked first at the beginning.
        prefix: what all our keys begin with.
        user: None where etcd asks for no password.
        password: of the user, unless it is in the file.
        password_file: a file with it, read whenever it is needed.
        ca: a file of certificates that the members' are checked with, ``system`` for those of this machine; None is
            plain HTTP.
        cert: our certificate; ``key`` is its private key.
    """

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    ca: str | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, text: str) -> EtcdAddress:
        """Reads what `url` writes.

        Raises:
            ValueError: it is no such address; the message says what to write, and has no password in it.
        """
        found = _URL.fullmatch(text)
        if found is None:
            raise ValueError("write sqlite, or etcd://USER:PASSWORD@HOST:2379,HOST2:2379/PREFIX?ca=FILE")
        user, _, password = (found["user"] or "").partition(":")
        options = _options(found["options"] or "")
        prefix = (found["prefix"] or "").rstrip("/") or DEFAULT_PREFIX
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"the prefix {prefix!r} must be of letters, digits and . _ - between slashes")
        return cls(
            endpoints=tuple(map(_endpoint, found["hosts"].split(","))),
            prefix=prefix,
            user=unquote(user) or None,
            password=unquote(password) or None,
            password_file=Path(options["password_file"]) if "password_file" in options else None,
            ca=options.get("ca"),
            cert=Path(options["cert"]) if "cert" in options else None,
            key=Path(options["key"]) if "key" in options else None,
        ).checked()

    def checked(self) -> EtcdAddress:
        """Returns itself. Raises ValueError where parts of it do not go together."""
        if (self.password or self.password_file) and not self.user:
            raise ValueError("there is a password and no user: write etcd://USER@HOST")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: name both files, or none")
        if self.cert is not None and self.ca is None:
            raise ValueError("cert is for TLS: add ca=FILE, or ca=system for the authorities of this machine")
        return self

    def with_password(self, password: str) -> EtcdAddress:
        """Returns the address with this password. Raises ValueError where there is no user."""
        return replace(self, password=password, password_file=None).checked()

    def url(self, password: str | None) -> str:
        """Returns it as it is written, with ``password`` in place of its own."""
        user = quote(self.user, safe="") if self.user else ""
        secret = f":{quote(password, safe='*')}" if password else ""
        options = urlencode(
            {name: str(value) for name in _OPTIONS if (value := getattr(self, name)) is not None}, safe="/"
        )
        return (
            f"{_SCHEME}{user}{secret}{'@' if user else ''}{','.join(self.endpoints)}{self.prefix}"
            f"{'?' if options else ''}{options}"
        )

    def __str__(self) -> str:
        """Writes it with the password masked."""
        return self.url(MASK if self.password else None)


def parse_store(value: Any) -> EtcdAddress | Literal["sqlite"]:
    """Reads ``system.store``. Raises ValueError with what to write; no password is in the message."""
    if isinstance(value, EtcdAddress):
        return value
    if value == SQLITE:
        return SQLITE
    return EtcdAddress.parse(value if isinstance(value, str) else "")


def _write(store: EtcdAddress | str, info: SerializationInfo) -> str:
    if not isinstance(store, EtcdAddress) or info.context != REVEAL:
        return str(store)
    return store.url(store.password)


def _options(text: str) -> dict[str, str]:
    given = parse_qsl(text, keep_blank_values=True)
    for name, value in given:
        if name not in _OPTIONS:
            raise ValueError(f"there is no option {name!r}; known are {', '.join(_OPTIONS)}")
        if not value.startswith("/") and (name, value) != ("ca", SYSTEM_CA):
            raise ValueError(f"{name} must be the absolute path of a file")
    return dict(given)


def _endpoint(text: str) -> str:
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found["port"] or DEFAULT_PORT) < 65536:
        raise ValueError(
            f"{text!r} is no endpoint: write HOST or HOST:PORT, with commas between several of them"
        )
    return f"{found['host']}:{found['port'] or DEFAULT_PORT}"


StoreAddress = Annotated[
    EtcdAddress | Literal["sqlite"],
    PlainValidator(parse_store),
    PlainSerializer(_write, return_type=str),
    WithJsonSchema({"type": "string", "examples": [SQLITE, "etcd://10.0.0.1:2379,10.0.0.2:2379/martlet"]}),
]
