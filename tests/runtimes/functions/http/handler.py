"""The contract function, as a server that knows nothing of Martlet."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

TEXT = "text/plain; charset=utf-8"
counter = 0


class Contract(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        target = urlsplit(self.path)
        self.route = unquote(target.path)
        self.query = dict(reversed(parse_qsl(target.query, keep_blank_values=True)))
        self.body = self.read_body()
        try:
            ROUTES.get(self.route, inspect)(self)
        except Exception as error:
            self.reply(str(error).encode(), TEXT, status=500)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def read_body(self):
        if self.headers["transfer-encoding"] != "chunked":
            return self.rfile.read(int(self.headers["content-length"] or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def reply(self, body, content_type, status=200, **headers):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, document):
        self.reply(json.dumps(document).encode(), "application/json")

    def log_request(self, code="-", size="-"):
        """Lines for each request are the platform's."""


def empty(request):
    request.send_response(204)
    request.end_headers()


def inspect(request):
    request.reply_json(
        {
            "method": request.command,
            "path": request.route,
            "query": request.query,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "length": len(request.body),
        }
    )


def raises(request):
    raise ValueError("the reason ✗")


def sleep(request):
    milliseconds = int(request.query["ms"])
    time.sleep(milliseconds / 1000)
    request.reply_json({"slept": milliseconds})


def log(request):
    print("to stdout ✓", flush=True)
    print("to stderr", file=sys.stderr)
    request.reply(b"logged", TEXT)


def count(request):
    global counter
    counter += 1
    request.reply_json({"count": counter})


def stream(request):
    request.send_response(200)
    request.send_header("content-type", "text/plain")
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"4\r\none\n\r\n")
    time.sleep(0.3)
    request.wfile.write(b"4\r\ntwo\n\r\n0\r\n\r\n")


ROUTES = {
    "/json": lambda request: request.reply_json(
        {"hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, None, True]}
    ),
    "/echo": lambda request: request.reply(request.body, request.headers["content-type"]),
    "/text": lambda request: request.reply("text ✓".encode(), TEXT),
    "/binary": lambda request: request.reply(bytes(range(256)), "application/octet-stream"),
    "/empty": empty,
    "/status": lambda request: request.reply(b"teapot", TEXT, status=418, x_colour="blue"),
    "/raise": raises,
    "/crash": lambda request: os._exit(3),
    "/sleep": sleep,
    "/environment": lambda request: request.reply_json({"GREETING": os.environ.get("GREETING")}),
    "/log": log,
    "/count": count,
    "/stream": stream,
    "/length": lambda request: request.reply_json({"length": len(request.body)}),
    "/large": lambda request: request.reply(b"x" * 5_000_000, TEXT),
}

ThreadingHTTPServer(("", int(os.environ["PORT"])), Contract).serve_forever()
