"""Where the platform is and what key it takes: given, from the environment, or the one on this machine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from martlet.client.errors import ClientError
from martlet.paths import default_storage_path

URL_VARIABLE = "MARTLET_URL"
KEY_VARIABLE = "MARTLET_KEY"
LOCAL_URL = "http://127.0.0.1:8000"
DEVELOPMENT_KEY = "admin-key"


@dataclass(frozen=True, slots=True)
class Address:
    """A platform: its root URL, the key to show there, and where that key was found (for error messages)."""

    url: str
    key: str
    key_source: str


def find_address(
    url: str | None = None, key: str | None = None, environment: Mapping[str, str] = os.environ
) -> Address:
    """Returns the platform to talk to.

    The URL is the given one, that of ``MARTLET_URL``, or the platform on this machine. The key is the given
    one or that of ``MARTLET_KEY``; for a platform on this machine also the one in its data folder, or else
    the well-known one of development mode. A key found on this machine is never sent to another one.

    Raises:
        ClientError: the URL or the key cannot be one, or the platform is elsewhere and no key was given.
    """
    address = _find(url, key, environment)
    if not address.key.isascii() or not address.key.isprintable() or " " in address.key:
        raise ClientError(f"{address.key_source} has characters that no key has: check what was copied")
    return address


def _find(url: str | None, key: str | None, environment: Mapping[str, str]) -> Address:
    url = (url or environment.get(URL_VARIABLE) or LOCAL_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientError(f"{url!r} is not the address of a platform: write one such as {LOCAL_URL}")
    if key:
        return Address(url, key, "the key that was given")
    if environment.get(KEY_VARIABLE):
        return Address(url, environment[KEY_VARIABLE], f"the key in {KEY_VARIABLE}")
    if not _on_this_machine(parts.hostname):
        raise ClientError(
            f"{url} needs a key: set {KEY_VARIABLE}, or make one there with `martlet keys create`"
        )
    return _local_key(url)


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _local_key(url: str) -> Address:
    path = default_storage_path() / "admin.key"
    try:
        key = path.read_text().strip()
    except OSError:
        key = ""
    if key:
        return Address(url, key, f"the key in {path}")
    return Address(url, DEVELOPMENT_KEY, "the well-known key of development mode")
