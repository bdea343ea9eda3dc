"""The contract function, in Python."""

import logging
import os
import sys
import time

counter = 0


def handle(request):
    return ROUTES.get(request.path, inspect)(request)


def inspect(request):
    return {
        "method": request.method,
        "path": request.path,
        "query": {name: request.query_params.get_all(name)[0] for name in request.query_params},
        "headers": request.headers,
        "length": len(request.body),
    }


def raises(request):
    raise ValueError("the reason ✗")


def sleep(request):
    milliseconds = int(request.query_params["ms"])
    time.sleep(milliseconds / 1000)
    return {"slept": milliseconds}


def log(request):
    print("to stdout ✓")
    print("to stderr", file=sys.stderr)
    logging.warning("a warning")
    return "logged"


def say(request):
    logging.warning("%s before", request.query_params["word"])
    time.sleep(0.1)
    logging.warning("%s after", request.query_params["word"])
    return "said"


def count(request):
    global counter
    counter += 1
    return {"count": counter}


def stream(request):
    def pieces():
        yield "one\n"
        time.sleep(0.3)
        yield "two\n"

    return pieces(), 200, {"content-type": "text/plain"}


ROUTES = {
    "/json": lambda request: {"hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, None, True]},
    "/echo": lambda request: (request.body, 200, {"content-type": request.get_header("content-type", "")}),
    "/text": lambda request: "text ✓",
    "/binary": lambda request: bytes(range(256)),
    "/empty": lambda request: None,
    "/status": lambda request: ("teapot", 418, {"x-colour": "blue"}),
    "/raise": raises,
    "/crash": lambda request: os._exit(3),
    "/sleep": sleep,
    "/environment": lambda request: {"GREETING": os.environ.get("GREETING")},
    "/log": log,
    "/say": say,
    "/count": count,
    "/stream": stream,
    "/length": lambda request: {"length": len(request.body)},
    "/large": lambda request: "x" * 5_000_000,
}
