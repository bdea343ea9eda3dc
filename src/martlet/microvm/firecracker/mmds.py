"""Environment and secrets of a function as its guest reads them from Firecracker's metadata service (MMDS, version 2).

They are put there by the host and never written to a disk or the kernel's command line. The guest gets a **boot
token** by another way (the command line of its kernel, or the channel to its agent) and takes a document only where
that has the same one: one that was meant for another guest, or for the template that this guest is a clone of, is
refused.

The guest must ask for a session token first, by PUT, so that nobody who can make it send a GET learns anything.

This module imports the standard library only: it is a part of the guest's agent too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

ADDRESS = "169.254.169.254"
LIMIT = 51_200
"""Bytes of the store, as JSON, unless Firecracker is told otherwise (``--mmds-size-limit``)."""
FORMAT = 1
_KEY = "martlet"
_SESSION_SECONDS = 60
_MAX_TOKEN = 256


class MetadataError(Exception):
    """The document cannot be written, or not be read; the message says why."""


class NotYours(MetadataError):
    """The document has another boot token."""


@dataclass(frozen=True)
class Metadata:
    """What a guest is told.

    Attributes:
        boot_token: whose document it is.
        environment: variables of the function.
        secrets: further variables, which are kept out of logs and descriptions; never shown here either.
    """

    boot_token: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def store(self, limit: int = LIMIT) -> dict[str, Any]:
        """Returns the store as the host puts it (`Firecracker.put_mmds`).

        Raises:
            MetadataError: it is over ``limit`` bytes, or a value is no text; the message names the variable.
        """
        if not self.boot_token:
            raise MetadataError("boot_token: give a random one, another for each guest")
        for kind, variables in (("environment", self.environment), ("secrets", self.secrets)):
            for name, value in variables.items():
                try:
                    f"{name}{value}".encode()
                except UnicodeEncodeError:
                    shown = name.encode(errors="backslashreplace").decode()
                    raise MetadataError(
                        f"{kind}.{shown}: it is not valid Unicode; encode binary values, as base64"
                    ) from None
        document = {
            "format": FORMAT,
            "boot_token": self.boot_token,
            "environment": dict(self.environment),
            "secrets": dict(self.secrets),
        }
        size = len(json.dumps({_KEY: document}, ensure_ascii=False, separators=(",", ":")).encode())
        if size > limit:
            raise MetadataError(
                f"environment and secrets take {size} bytes as JSON and may take {limit}: put large values into the "
                "package, or fetch them at run time"
            )
        return {_KEY: document}

    @classmethod
    def from_document(cls, document: Any, boot_token: str) -> Metadata:
        """Reads what a guest has been told.

        Args:
            document: what `store` has, without the outermost object.
            boot_token: the guest's own.

        Raises:
            NotYours: it is for another guest.
            MetadataError: it is none of ours, or of another format.
        """
        if not isinstance(document, dict) or not isinstance(document.get("boot_token"), str):
            raise MetadataError("the metadata is not a document of Martlet's")
        if document.get("format") != FORMAT:
            raise MetadataError(
                f"the metadata has format {document.get('format')!r} and this agent reads {FORMAT}: make the template "
                "anew"
            )
        if not hmac.compare_digest(document["boot_token"].encode(), boot_token.encode()):
            raise NotYours("the metadata is for another guest: its boot token is not this guest's")
        for kind in ("environment", "secrets"):
            found = document.get(kind)
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise MetadataError(f"{kind}: it is not an object of texts")
        return cls(boot_token, document["environment"], document["secrets"])


def read(boot_token: str, *, address: str = ADDRESS, port: int = 80, timeout: float = 5.0) -> Metadata:
    """Reads the guest's metadata, inside of the guest.

    Args:
        boot_token: the guest's own.
        address: of the service.
        port: of the service.
        timeout: seconds that each of its answers may take.

    Raises:
        NotYours: there is a document, and it is for another guest.
        MetadataError: there is none yet, or the service does not answer as it should.
    """
    session = _ask(
        address,
        port,
        timeout,
        "PUT",
        "/latest/api/token",
        {"X-metadata-token-ttl-seconds": str(_SESSION_SECONDS)},
    )
    token = session[:_MAX_TOKEN].decode("ascii", errors="replace").strip()
    if not token.isprintable() or not token:
        raise MetadataError("the metadata service gave no session token")
    headers = {"X-metadata-token": token, "Accept": "application/json"}
    body = _ask(address, port, timeout, "GET", f"/{_KEY}", headers)
    try:
        document = json.loads(body)
    except ValueError:
        raise MetadataError("the metadata is not JSON") from None
    return Metadata.from_document(document, boot_token)


def _ask(
    address: str, port: int, timeout: float, method: str, path: str, headers: Mapping[str, str]
) -> bytes:
    connection = HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read(LIMIT * 16)
    except (OSError, HTTPException) as error:
        raise MetadataError(f"the metadata service does not answer {method} {path}: {error}") from error
    finally:
        connection.close()
    if answer.status == 404:
        raise MetadataError("there is no metadata for this guest yet")
    if answer.status != 200:
        raise MetadataError(f"the metadata service answered {method} {path} with {answer.status}")
    return body
