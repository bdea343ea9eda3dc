"""What Martlet is compared with, each started in the same run on the same machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import free_port, wait_for_port
from martlet.runtimes import INTERPRETER, Catalogue

HELLO = "def handle(request):\n    return 'hello'\n"
FRAMEWORK = "def handle(request):\n    return 'hello'\n"
FRAMEWORK_ASGI = "async def handle(request):\n    return 'hello'\n"
FASTAPI = """
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
app = FastAPI()
@app.post("/")
async def hello(request: Request):
    await request.body()
    return PlainTextResponse("hello")
"""
NGINX = """
user root; daemon off; master_process on; worker_processes 2; pid %(folder)s/nginx.pid; error_log %(folder)s/error.log;
events { worker_connections 1024; }
http {
  access_log off; client_body_buffer_size 128k; client_body_temp_path %(folder)s/body;
  proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u;
  scgi_temp_path %(folder)s/s;
  upstream workers { %(servers)s keepalive 64; }
  server {
    listen 127.0.0.1:%(port)d reuseport;
    location / { %(location)s }
  }
}
"""
RETURN = "return 200 'hello';"
PROXY = 'proxy_pass http://workers; proxy_http_version 1.1; proxy_set_header Connection "";'
THREADS = 64


@contextmanager
def running(
    command: list[str], prepare: Callable[[], None] | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program, and ends it with all it has started. ``prepare`` is called in its process before it."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=prepare,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def nginx(location: str, sockets: list[Path]) -> Iterator[int]:
    """An nginx with two workers; yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        servers = " ".join(f"server unix:{path};" for path in sockets) or "server 127.0.0.1:1;"
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX % {"folder": folder, "port": port, "servers": servers, "location": location})
        with running(["nginx", "-p", folder, "-c", str(config)]):
            wait_for_port(port)
            yield port


@contextmanager
def python_workers(
    count: int, concurrency: int, code: str = HELLO, prepare: Callable[[], None] | None = None
) -> Iterator[list[Path]]:
    """The Python runtime as a plain program, serving ``code`` on unix sockets without any platform around it."""
    runtime = Catalogue.load().resolve("python")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        (Path(folder) / "handler.py").write_text(code)
        sockets = [Path(folder) / f"{number}.sock" for number in range(count)]
        for path in sockets:
            program = runtime.folder / "shim.py"
            stack.enter_context(running([str(INTERPRETER), str(program), "--socket", str(path)], prepare))
            specialise(path, folder, concurrency)
        yield sockets


def specialise(path: Path, folder: str, concurrency: int) -> None:
    """Waits until a Python runtime listens at ``path``, and makes it an instance of the code in ``folder``."""
    import http.client

    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("worker")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(path))
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    document = (
        f'{{"function": "hello", "revision": 1, "code": "{folder}", "dependencies": null, "handler": "handle", '
        f'"environment": {{}}, "concurrency": {concurrency}, "max_body": 20971520}}'
    )
    connection.request("POST", "/_martlet/specialise", document)
    assert connection.getresponse().status == 200
    connection.close()


@contextmanager
def nginx_return() -> Iterator[int]:
    """An nginx that answers by itself."""
    with nginx(RETURN, []) as port:
        yield port


@contextmanager
def nginx_to_worker() -> Iterator[int]:
    """An nginx in front of the same Python runtime that Martlet runs, without sandbox, keys or limits."""
    with python_workers(2, THREADS) as sockets, nginx(PROXY, sockets) as port:
        yield port


@contextmanager
def fastapi() -> Iterator[int]:
    """A uvicorn with two workers and a FastAPI application."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.py").write_text(FASTAPI)
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "hello:app", "--app-dir", folder, "--port", str(port)]
        with running([*command, "--workers", "2", "--no-access-log", "--log-level", "error"]):
            wait_for_port(port)
            yield port


@contextmanager
def framework() -> Iterator[int]:
    """functions-framework as it is shipped."""
    yield from _framework(FRAMEWORK, [])


@contextmanager
def framework_asgi() -> Iterator[int]:
    """functions-framework in its fastest mode: asynchronous, two workers."""
    yield from _framework(FRAMEWORK_ASGI, ["--asgi"])


def _framework(code: str, flags: list[str]) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "main.py"
        source.write_text(code)
        port = free_port()
        program = str(Path(sys.executable).parent / "functions-framework")
        command = [program, "--target", "handle", "--source", str(source), "--port", str(port), *flags]
        with running(command, WORKERS="2" if flags else "1"):
            wait_for_port(port)
            yield port
