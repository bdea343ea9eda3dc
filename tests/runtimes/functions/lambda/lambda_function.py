"""The contract function, as AWS has it: it knows nothing of Martlet."""

import base64
import os
import sys
import time
from urllib.parse import parse_qsl

TEXT = "text/plain; charset=utf-8"
counter = 0


def lambda_handler(event, context):
    return ROUTES.get(event["rawPath"], inspect)(event)


def response(body, content_type, status=200, **headers):
    fields = {
        "content-type": content_type,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    if isinstance(body, str):
        return {"statusCode": status, "headers": fields, "body": body}
    encoded = base64.b64encode(body).decode()
    return {"statusCode": status, "headers": fields, "body": encoded, "isBase64Encoded": True}


def body_of(event):
    body = event.get("body", "")
    return base64.b64decode(body) if event["isBase64Encoded"] else body.encode()


def query_of(event):
    # The first value of each, where `queryStringParameters` has all of them with commas between.
    return dict(reversed(parse_qsl(event["rawQueryString"], keep_blank_values=True)))


def inspect(event):
    return {
        "method": event["requestContext"]["http"]["method"],
        "path": event["rawPath"],
        "query": query_of(event),
        "headers": event["headers"],
        "length": len(body_of(event)),
    }


def raises(event):
    raise ValueError("the reason ✗")


def sleep(event):
    milliseconds = int(event["queryStringParameters"]["ms"])
    time.sleep(milliseconds / 1000)
    return {"slept": milliseconds}


def log(event):
    print("to stdout ✓")
    print("to stderr", file=sys.stderr)
    return response("logged", TEXT)


def say(event):
    word = event["queryStringParameters"]["word"]
    print(word, "before")
    time.sleep(0.1)
    print(word, "after", file=sys.stderr)
    return response("said", TEXT)


def count(event):
    global counter
    counter += 1
    return {"count": counter}


ROUTES = {
    "/json": lambda event: {"hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, None, True]},
    "/echo": lambda event: response(body_of(event), event["headers"].get("content-type", "")),
    "/text": lambda event: response("text ✓", TEXT),
    "/binary": lambda event: response(bytes(range(256)), "application/octet-stream"),
    "/empty": lambda event: {"statusCode": 204},
    "/status": lambda event: response("teapot", TEXT, 418, x_colour="blue"),
    "/raise": raises,
    "/crash": lambda event: os._exit(3),
    "/sleep": sleep,
    "/environment": lambda event: {"GREETING": os.environ.get("GREETING")},
    "/log": log,
    "/say": say,
    "/count": count,
    "/length": lambda event: {"length": len(body_of(event))},
    "/large": lambda event: response("x" * 5_000_000, TEXT),
}
