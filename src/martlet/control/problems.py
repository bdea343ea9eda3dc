"""Every error as a problem document, also those that FastAPI and Starlette raise."""

from __future__ import annotations

import math

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from martlet.errors import (
    PROBLEM_CONTENT_TYPE,
    BadRequest,
    BodyTooLarge,
    Invalid,
    MartletError,
    MethodNotAllowed,
    NotFound,
    Unavailable,
)
from martlet.storage.blobs import BlobError
from martlet.storage.queue import QueueError
from martlet.storage.store import StoreError
from martlet.validation import KEY, in_words

log = structlog.get_logger()


class Problem(BaseModel):
    """What every error is answered with (RFC 9457).

    ``code`` names the error for programs, ``detail`` explains it to people, ``field`` is the input at fault. A deploy
    that failed has ``build`` and ``log``.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | None = None
    build: str | None = None
    log: list[str] | None = None


def install(app: FastAPI) -> None:
    """Makes the application answer every error with a problem document."""
    app.add_exception_handler(MartletError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(StoreError, _on_unreachable)
    app.add_exception_handler(BlobError, _on_unreachable)
    app.add_exception_handler(QueueError, _on_unreachable)


def answer(error: MartletError, request_id: str) -> Response:
    """Returns the answer that an error is."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return Response(error.body(request_id), error.status, headers, PROBLEM_CONTENT_TYPE)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, MartletError)
    return answer(error, request.state.request_id)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    place, *path = fault["loc"]
    if fault["type"] == "json_invalid":
        return answer(BadRequest(f"the body is not JSON: {fault['ctx']['error']}"), request.state.request_id)
    field = ".".join(str(part) for part in path if part not in ("body", KEY)) or str(place)
    return answer(Invalid(f"{field}: {in_words(fault)}", field=field), request.state.request_id)


async def _on_http(request: Request, error: Exception) -> Response:
    """Routing has found nothing, or a body cannot be parsed at all."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answer(NotFound(f"there is no {request.url.path}"), request.state.request_id)
    if error.status_code == 405:
        refusal = answer(
            MethodNotAllowed(f"{request.url.path} does not take {request.method}"), request.state.request_id
        )
        refusal.headers["allow"] = ", ".join(_methods(request))
        return refusal
    if error.status_code == 413:
        return answer(BodyTooLarge(error.detail), request.state.request_id)
    return answer(BadRequest(error.detail), request.state.request_id)


def _methods(request: Request) -> list[str]:
    """Returns the methods that a path has: each has a route of its own, so that no single route knows them all.

    What has GET has HEAD (see `Envelope`).
    """
    app: FastAPI = request.app
    scope = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    methods = [
        method
        for method in ("GET", "POST", "PUT", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]
    return ["GET", "HEAD", *methods[1:]] if "GET" in methods else methods


async def _on_unreachable(request: Request, error: Exception) -> Response:
    log.warning("storage_unreachable", request_id=request.state.request_id, error=str(error))
    return answer(Unavailable("the platform's storage is out of reach; try again"), request.state.request_id)
