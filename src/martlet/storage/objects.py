"""How objects in an S3-compatible service are reached, and what its faults are called."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store

from martlet.bucket import Bucket
from martlet.storage.credentials import CredentialsFile

if TYPE_CHECKING:
    from obstore.store import S3Config

_CODE = re.compile(r"<Code>(\w+)</Code>")
_UNSENT = "connection was not ready"


def s3_objects(bucket: Bucket, request_seconds: float, retry_seconds: float) -> S3Store:
    """Returns the objects of a bucket; the service is not asked yet.

    Each request fails after ``request_seconds`` and, where it may help, is begun anew for ``retry_seconds``.

    Raises:
        Invalid: the file with the keys cannot be read.
    """
    config: S3Config = {"disable_bulk_delete": True}  # not every service has it
    if bucket.endpoint is not None:
        config["endpoint"] = bucket.endpoint
    if bucket.region is not None:
        config["region"] = bucket.region
    return S3Store(
        bucket.name,
        prefix=bucket.prefix or None,
        config=config,
        credential_provider=CredentialsFile(bucket.credentials) if bucket.credentials else None,
        client_options={
            "allow_http": bucket.endpoint is not None and bucket.endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=min(3.0, request_seconds)),
            "timeout": timedelta(seconds=request_seconds),
        },
        retry_config={
            "max_retries": 100,  # time is what bounds them
            "retry_timeout": timedelta(seconds=retry_seconds),
            "backoff": {"max_backoff": timedelta(seconds=2)},
        },
    )


def was_unsent(error: BaseException | None) -> bool:
    """Whether a request met a kept connection that the service had just closed: the library gives up on that."""
    return _UNSENT in str(error)


def sentence(error: Exception) -> str:
    """Returns what the library says without the service's document and the dump of its inner state that follow."""
    said = str(error)
    first = said.partition("\n")[0].partition(": <")[0]
    code = _CODE.search(said)
    return f"{first} ({code[1]})" if code else first
