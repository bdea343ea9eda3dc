"""What goes wrong between a client and the platform.

ClientError
├── Unreachable     nothing answers at that address, or the connection broke
├── ApiError        the platform answered with a problem document
└── BuildFailed     a deploy did not become ready; the old revision still serves
"""

from __future__ import annotations

from typing import Any

from martlet.errors import MartletError, every_error


class ClientError(Exception):
    """The root of the tree above. ``str()`` of any of them is a sentence for people."""


class Unreachable(ClientError):
    """The platform did not answer; the message says how to start it or where else to look."""


class ApiError(ClientError):
    """The platform refused a request.

    Attributes:
        code: the stable name of the error, as `martlet.errors` lists them.
        status: the HTTP status.
        detail: what is wrong and what to do, for people.
        field: the input field at fault, in dotted form, or None.
        request_id: what to look for in the logs of the platform, or None.
        retry_after: seconds after which a retry may help, or None.
        document: the whole problem document.
    """

    def __init__(
        self, status: int, document: dict[str, Any], *, request_id: str | None, retry_after: float | None
    ) -> None:
        self.status = status
        self.document = document
        self.code = str(document.get("code") or "internal")
        self.detail = str(
            document.get("detail") or document.get("title") or f"the platform answered {status}"
        )
        self.field: str | None = document.get("field")
        self.request_id: str | None = document.get("request_id") or request_id
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def kind(self) -> type[MartletError]:
        """The class of `martlet.errors` that ``code`` names; `MartletError` where none does."""
        return next((error for error in every_error() if error.code == self.code), MartletError)
