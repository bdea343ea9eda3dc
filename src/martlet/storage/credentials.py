"""Keys for S3 from a file in the form of AWS's own, which is read again before what was read grows old."""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ParserError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from martlet.errors import Invalid

if TYPE_CHECKING:
    from obstore.store import S3Credential

SECTION = "default"
FRESH = timedelta(minutes=10)
"""How long keys are used before the file is read again, so that they can be rotated while the platform runs."""


class CredentialsFile:
    """A file with the section ``[default]`` and in it ``aws_access_key_id``, ``aws_secret_access_key`` and, where the
    service wants it, ``aws_session_token``. Called, it returns them.

    Raises:
        Invalid: the file cannot be read, or has not all of this. Nothing of what it holds is said.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self()

    def __call__(self) -> S3Credential:
        """Reads the file; see the class."""
        parser = ConfigParser(interpolation=None)
        try:
            parser.read_string(self._path.read_text())
            section = parser[SECTION]
            keys: S3Credential = {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section["aws_secret_access_key"],
                "token": section.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + FRESH,
            }
        except OSError as error:
            raise self._refusal(f"it cannot be read: {error.strerror}") from None
        except (ParserError, KeyError, UnicodeDecodeError):
            raise self._refusal(
                f"it must have a section [{SECTION}] with aws_access_key_id and aws_secret_access_key"
            ) from None
        return keys

    def _refusal(self, reason: str) -> Invalid:
        return Invalid(f"system.blobs: the file of credentials {self._path}: {reason}", field="system.blobs")
