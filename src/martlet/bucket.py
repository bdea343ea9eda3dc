"""Where blobs lie in an S3-compatible service, as people write it: ``s3://bucket/prefix?endpoint=…&region=…``.

An address never holds keys: they come from the variables ``AWS_…``, from the role of the machine, or from a file that
the address names. So whatever shows the settings shows no secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_PARAMETERS = ("endpoint", "region", "credentials")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, or what lies under a prefix of it.

    Attributes:
        name: of the bucket.
        prefix: folders between the bucket and the blobs, without slashes at the ends; may be empty.
        endpoint: URL of the service; None is AWS, or what ``AWS_ENDPOINT_URL`` says.
        region: None is what ``AWS_REGION`` says, or ``us-east-1``.
        credentials: a file with keys, in the form of AWS's own (``[default]``, ``aws_access_key_id = …``).
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    credentials: Path | None = None

    def __str__(self) -> str:
        """Writes it as `parse_bucket` reads it."""
        given = {name: str(value) for name in _PARAMETERS if (value := getattr(self, name)) is not None}
        query = f"?{urlencode(given, safe=':/', quote_via=quote)}" if given else ""
        return f"s3://{self.name}{f'/{self.prefix}' if self.prefix else ''}{query}"


def parse_bucket(value: Any) -> Bucket:
    """Reads ``"s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-1&credentials=/etc/martlet.s3"``.

    Raises:
        ValueError: it is no such address. The message says what to write, and repeats nothing that may be a secret.
    """
    if isinstance(value, Bucket):
        return value
    if not isinstance(value, str) or not value.startswith("s3://"):
        raise ValueError(
            "write s3://BUCKET or s3://BUCKET/PREFIX, with ?endpoint=URL&region=NAME&credentials=FILE as needed"
        )
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError(
            "an address holds no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to a file and "
            "name it with ?credentials=FILE"
        )
    if not _NAME.fullmatch(parts.netloc) or ".." in parts.netloc:
        raise ValueError(
            "the name of the bucket (s3://BUCKET/…) has 3 to 63 small letters, digits, dots and hyphens"
        )
    prefix = parts.path.strip("/")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(
            "the prefix (s3://BUCKET/PREFIX) has names of letters, digits and !_.*'()- with single slashes between them"
        )
    if parts.fragment:
        raise ValueError("an address of blobs has no fragment: remove the # and what follows")
    return Bucket(parts.netloc, prefix, **_parameters(parts.query))


def _parameters(query: str) -> dict[str, Any]:
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError("behind the ? stand parameters as NAME=VALUE, with & between them") from None
    names = [name for name, _ in given]
    for name in names:
        if name not in _PARAMETERS:
            raise ValueError(f"there is no parameter {name!r}; known are {', '.join(_PARAMETERS)}")
        if names.count(name) > 1:
            raise ValueError(f"{name} is given more than once")
    return {name: _READERS[name](value) for name, value in given}


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number, or too large
        sound = False
    if not sound or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("endpoint is http:// or https:// with a host and perhaps a port, and nothing else")
    return f"{parts.scheme}://{parts.netloc}"


def _region(value: str) -> str:
    if not _REGION.fullmatch(value):
        raise ValueError("region has small letters, digits and hyphens, as in eu-central-1")
    return value


def _credentials(value: str) -> Path:
    if not value.startswith("/"):
        raise ValueError("credentials is the absolute path of a file")
    return Path(value)


_READERS = {"endpoint": _endpoint, "region": _region, "credentials": _credentials}

BucketText = Annotated[
    Bucket,
    BeforeValidator(parse_bucket),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": "^s3://", "examples": ["s3://bucket/prefix?region=eu-central-1"]}
    ),
]
