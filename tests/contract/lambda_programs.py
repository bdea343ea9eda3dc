"""A Lambda runtime's cell, and a small program for it that speaks the Runtime API as AWS describes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from martlet import runtimes
from tests.contract.python_shim import ENVIRONMENT, OPTIONS, Process

_CELL = """
import importlib, socket, sys
sys.path.insert(0, sys.argv[1])
shim = importlib.import_module("_martlet_lambda")
shim.warm()
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
shim.serve(listener)
"""

BOOTSTRAP = f"""#!{sys.executable} -I
import http.client, json, os, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
BASE = "/2018-06-01/runtime/"

def ask(method, path, body=None, headers={{}}, **more):
    api.request(method, BASE + path, body, headers, **more)
    answer = api.getresponse()
    return answer, answer.read()

def run(handle):
    while True:
        told, event = ask("GET", "invocation/next")
        id = told.headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            reply = handle(json.loads(event), told.headers)
        except Exception as error:
            document = {{"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}}
            ask("POST", f"invocation/{{id}}/error", json.dumps(document))
        else:
            body, headers, chunked = reply if isinstance(reply, tuple) else (json.dumps(reply), {{}}, False)
            answer, text = ask("POST", f"invocation/{{id}}/response", body, headers, encode_chunked=chunked)
            assert answer.status == 202, text
"""
"""The client; a function's own code follows, and calls ``run(handle)``."""


def cell(path: Path, log: int) -> Process:
    """Starts a cell that listens at a path, without a sandbox."""
    folder = Path(runtimes.__file__).parent / "lambda"
    python = Path(sys.base_prefix, "bin", "python3")
    return subprocess.Popen(
        [python, *OPTIONS, "-c", _CELL, str(folder), str(path)], stdout=log, stderr=log, env=ENVIRONMENT
    )
