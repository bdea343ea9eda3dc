"""A request as the event that a Lambda function gets for it: the payload of version 2.0, as of function URLs."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from _martlet_python.http1 import Head, decode_path

from .program import ACCOUNT

_TEXT = ("text/", "application/json", "application/javascript", "application/xml")


def event_of(head: Head, body: bytes, request_id: str, function: str) -> bytes:
    """Returns the event for a request, as JSON."""
    fields = dict(head.fields)
    path, _, query = head.target.partition("?")
    cookies = fields.pop("cookie", "")
    shown = {name: value for name, value in fields.items() if not name.startswith("x-faas-")}
    text = _text(fields.get("content-type", ""), body)
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": decode_path(path),
        "rawQueryString": query,
        "headers": shown,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": function,
            "domainName": fields.get("host", ""),
            "domainPrefix": fields.get("host", "").partition(".")[0],
            "http": {
                "method": head.method,
                "path": decode_path(path),
                "protocol": "HTTP/1.1",
                "sourceIp": _last(fields.get("x-forwarded-for", "")),
                "userAgent": fields.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": body != b"" and text is None,
    }
    if cookies:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if query:
        event["queryStringParameters"] = _joined(query)
    if body:
        event["body"] = base64.b64encode(body).decode() if text is None else text
    return json.dumps(event).encode()


def _text(content_type: str, body: bytes) -> str | None:
    """Returns the body where it is text, else None."""
    if not content_type.lower().startswith(_TEXT):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(query: str) -> Mapping[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _last(addresses: str) -> str:
    """Returns the address that the platform itself has seen, which is behind those that clients claim."""
    return addresses.rpartition(",")[2].strip()
