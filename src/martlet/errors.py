"""Every error Martlet answers with, as one tree.

    MartletError                      500 internal
    ├── BadRequest                    400 bad_request
    │   ├── Invalid                   422 invalid              (names the field)
    │   │   └── BuildFailed           422 build_failed         (with the build and its log)
    │   ├── BodyTooLarge              413 body_too_large
    │   ├── HeadTooLarge              431 head_too_large
    │   ├── MethodNotAllowed          405 method_not_allowed
    │   └── RequestTimeout            408 request_timeout
    ├── Unauthenticated               401 unauthenticated
    ├── Forbidden                     403 forbidden
    ├── NotFound                      404 not_found
    │   └── FunctionNotFound          404 function_not_found
    ├── Conflict                      409 conflict
    ├── RateLimited                   429 rate_limited         (retry)
    ├── Overloaded                    429 overloaded           (retry)
    ├── Unavailable                   503 unavailable          (retry)
    │   └── NoCapacity                503 no_capacity          (retry)
    └── FunctionError                 500 function_error       (the handler raised)
        ├── FunctionLoadFailed        502 function_load_failed
        ├── FunctionCrashed           502 function_crashed
        │   └── FunctionOutOfMemory   502 function_out_of_memory
        └── FunctionTimeout           504 function_timeout

On the wire each is a problem document (RFC 9457) with two members of ours, ``code`` and ``request_id``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

PROBLEM_CONTENT_TYPE = "application/problem+json"


class MartletError(Exception):
    """Something went wrong that a client may be told.

    Attributes:
        code: the stable, machine-readable name of the error.
        status: the HTTP status it is answered with.
        title: one sentence for people, the same for every error of this class.
        retry_after: seconds after which a retry may help, or None where it does not help.
        field: the input field at fault, in dotted form (``config.memory``), or None.
        extra: further members of the problem document (``log`` of a failed build, say).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong inside the platform"
    default_retry_after: ClassVar[float | None] = None

    def __init__(
        self,
        detail: str = "",
        *,
        field: str | None = None,
        retry_after: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.field = field
        self.retry_after = self.default_retry_after if retry_after is None else retry_after
        self.extra = extra or {}

    def problem(self, request_id: str) -> dict[str, Any]:
        """Returns the problem document as a JSON-ready dict."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.field is not None:
            document["field"] = self.field
        return document | self.extra

    def body(self, request_id: str) -> bytes:
        """Returns the problem document as UTF-8 JSON."""
        return orjson.dumps(self.problem(request_id))


class BadRequest(MartletError):
    """The request is not understood."""

    code, status, title = "bad_request", 400, "The request is malformed"


class Invalid(BadRequest):
    """A field of the request has a value that is not allowed; ``field`` names it."""

    code, status, title = "invalid", 422, "The request has an invalid value"


class BuildFailed(Invalid):
    """What was deployed does not build or load; ``extra`` has the build's id and log. What served before still does."""

    code, title = "build_failed", "The deploy failed; what served before still does"


class MethodNotAllowed(BadRequest):
    """The resource is there and does not know this method."""

    code, status, title = "method_not_allowed", 405, "The resource does not have this method"


class BodyTooLarge(BadRequest):
    """The request body is over the limit."""

    code, status, title = "body_too_large", 413, "The request body is too large"


class HeadTooLarge(BadRequest):
    """The request line and headers are over the limit."""

    code, status, title = "head_too_large", 431, "The request head is too large"


class RequestTimeout(BadRequest):
    """The client took too long to send its request."""

    code, status, title = "request_timeout", 408, "The request was not sent in time"


class Unauthenticated(MartletError):
    """No key, or one that is unknown, expired or revoked."""

    code, status, title = "unauthenticated", 401, "A valid API key is required"


class Forbidden(MartletError):
    """The key is known and may not do this."""

    code, status, title = "forbidden", 403, "The API key does not allow this"


class NotFound(MartletError):
    """No such resource."""

    code, status, title = "not_found", 404, "There is no such resource"


class FunctionNotFound(NotFound):
    """No such function, revision or alias."""

    code, title = "function_not_found", "There is no such function"


class Conflict(MartletError):
    """The resource exists already, or was changed by somebody else meanwhile."""

    code, status, title = "conflict", 409, "The resource is in another state than the request assumes"


class RateLimited(MartletError):
    """A token bucket is empty."""

    code, status, title = "rate_limited", 429, "Too many requests"
    default_retry_after = 1.0


class Overloaded(MartletError):
    """The function's queue is full."""

    code, status, title = "overloaded", 429, "The function has too many requests waiting"
    default_retry_after = 1.0


class Unavailable(MartletError):
    """A part of the platform is not there right now (restarting, say)."""

    code, status, title = "unavailable", 503, "The platform cannot answer this right now"
    default_retry_after = 1.0


class NoCapacity(Unavailable):
    """No node may start another instance."""

    code, title = "no_capacity", "No node has room for another instance"


class FunctionError(MartletError):
    """The function's handler raised; ``detail`` is the exception's type and message."""

    code, status, title = "function_error", 500, "The function raised an error"


class FunctionLoadFailed(FunctionError):
    """The function's code does not load, or its instance does not become ready."""

    code, status, title = "function_load_failed", 502, "The function's code does not load"


class FunctionCrashed(FunctionError):
    """The instance died while it ran the request, or answered with something that is not HTTP."""

    code, status, title = "function_crashed", 502, "The function's instance died"


class FunctionOutOfMemory(FunctionCrashed):
    """The kernel ended the instance because it went over its memory limit."""

    code, title = "function_out_of_memory", "The function ran out of memory"


class FunctionTimeout(FunctionError):
    """The deadline passed; the instance was killed."""

    code, status, title = "function_timeout", 504, "The function ran past its timeout"


def every_error(root: type[MartletError] = MartletError) -> list[type[MartletError]]:
    """Returns ``root`` and all of its subclasses, depth first, in order of definition."""
    found = [root]
    for child in root.__subclasses__():
        found += every_error(child)
    return found
