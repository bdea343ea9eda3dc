"""What both clients share of HTTP: how to connect, and what an answer or a broken connection means."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx2

from martlet.client.address import URL_VARIABLE, Address
from martlet.client.call import Call, Document
from martlet.client.errors import ApiError, ClientError, Unreachable
from martlet.errors import PROBLEM_CONTENT_TYPE, Unauthenticated

OnMissing: TypeAlias = Callable[[list[str]], None]

CONNECT_TIMEOUT = 5.0
"""Seconds a connection may take to open. Answers take what they need: functions and builds have limits."""


def options(address: Address) -> dict[str, Any]:
    """Returns the options of the httpx2 client that talks to this platform."""
    plain = address.url.startswith("http:")
    return {
        "base_url": address.url,
        "headers": {"authorization": f"Bearer {address.key}"},
        "timeout": httpx2.Timeout(None, connect=CONNECT_TIMEOUT),
        # Plain HTTP verifies nothing, so an empty store of certificates will do: loading the usual one takes
        # longer than most requests.
        "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        "trust_env": not plain,
    }


def may_be_error(call: Call, response: httpx2.Response) -> bool:
    """Whether the body must be read to know if the platform refused the request."""
    if not call.of_function:
        return response.is_error
    return response.is_error and response.headers.get("content-type", "").startswith(PROBLEM_CONTENT_TYPE)


def error_of(address: Address, call: Call, response: httpx2.Response) -> ApiError | None:
    """Returns the error that an answer, whose body has been read, means.

    None where a function wrote it: the platform's own problem documents repeat the request's id.
    """
    error = _error(address, response)
    if call.of_function and error.document.get("request_id") != response.headers.get("x-request-id"):
        return None
    return error


def machines_missing(call: Call, response: httpx2.Response) -> list[str]:
    """Returns the ids of the machines that did not say what they have, for an answer about all of them."""
    named = "" if call.of_function else response.headers.get("x-faas-missing", "")
    return [name for name in named.split(", ") if name]


def document(event: httpx2.ServerSentEvent) -> Document:
    """Returns the JSON object that a server-sent event carries."""
    carried: Document = json.loads(event.data)
    return carried


def transport_error(address: Address, error: httpx2.TransportError) -> ClientError:
    """Returns the error that it means when a request was not carried to its end."""
    if (fault := _fault_of_tls(error)) is not None:
        return Unreachable(f"no TLS with {address.url}, or not with one to be trusted: {fault}")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Unreachable(
            f"nothing answers at {address.url}: start the platform with `martlet serve`, "
            f"or set {URL_VARIABLE} to where it runs"
        )
    if isinstance(error, httpx2.LocalProtocolError):
        return ClientError(f"the request cannot be sent: {error}")
    return Unreachable(f"the connection to {address.url} broke ({error or type(error).__name__}): try again")


def _fault_of_tls(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _error(address: Address, response: httpx2.Response) -> ApiError:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"detail": f"the platform answered {response.status_code} {response.reason_phrase}"}
    if response.status_code == Unauthenticated.status:
        document["detail"] = (
            f"{document.get('detail') or Unauthenticated.title} (shown was {address.key_source})"
        )
    retry_after = response.headers.get("retry-after", "")
    return ApiError(
        response.status_code,
        document,
        request_id=response.headers.get("x-request-id"),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )
