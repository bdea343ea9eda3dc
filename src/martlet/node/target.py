"""A revision in the form that the data path asks it."""

from __future__ import annotations

from martlet.model import Revision
from martlet.units import EventRate


class Target:
    """A revision with what every request to it needs, worked out once.

    Attributes:
        id: ``hello@3``.
        head: the header lines that tell the instance who it is.
        bucket: the name of its token bucket (see `martlet.gateway.buckets`), the same for all its revisions.
        stamp: the header lines that tell the client who answered.
    """

    __slots__ = ("bucket", "function", "head", "id", "public", "rate", "revision", "stamp", "timeout")

    def __init__(self, revision: Revision, bucket: int = 0) -> None:
        self.revision = revision
        self.id = revision.id
        self.function = revision.function
        self.timeout = revision.config.timeout
        self.rate: EventRate = revision.config.rate_limit
        self.bucket = bucket
        self.public = revision.config.public
        number = b"%d" % revision.number
        self.head = b"x-faas-function: %b\r\nx-faas-revision: %b\r\nx-faas-deadline: %d\r\n" % (
            revision.function.encode(),
            number,
            int(revision.config.timeout * 1000),
        )
        self.stamp = b"x-faas-revision: %b\r\n" % number
