"""Which program a package has for the Runtime API, and the environment that it is started with."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

REGION = "us-east-1"
ACCOUNT = "000000000000"
BOOTSTRAP = "bootstrap"

_PATH = "/usr/local/bin:/usr/bin:/bin"
_BASE_ENVIRONMENT = {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}  # noqa: S108
_DEFAULT_HANDLER = "handle"
_PYTHON_CLIENT = "awslambdaric"
_NODE_CLIENT = "aws-lambda-ric"
_NODE_ENTRIES = ("index.mjs", "bin/index.mjs")
_MiB = 1024**2


class NoProgram(Exception):
    """The package has no program that asks for invocations."""


class Program(NamedTuple):
    """What to start, and which handler it is told of."""

    command: list[str]
    handler: str


def find(code: str, dependencies: str | None, handler: str) -> Program:
    """Returns the program of a package.

    It is the executable file that ``handler`` names, or ``bootstrap``; where there is neither, Python's runtime client
    (``awslambdaric``, in the code or among the dependencies) or that of Node (``aws-lambda-ric``).

    Raises:
        NoProgram: there is none of them; the message says what to do.
    """
    for name in (handler, BOOTSTRAP):
        path = os.path.join(code, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return Program([path], handler)
    if os.path.isfile(os.path.join(code, BOOTSTRAP)):
        raise NoProgram(f"{BOOTSTRAP} cannot be executed: `chmod +x {BOOTSTRAP}` before it is packed")
    if any(folder and os.path.isdir(os.path.join(folder, _PYTHON_CLIENT)) for folder in (code, dependencies)):
        named = _named(handler, "lambda_function.lambda_handler")
        return Program([sys.executable, "-m", _PYTHON_CLIENT, named], named)
    for entry in _NODE_ENTRIES:
        path = os.path.join(code, "node_modules", _NODE_CLIENT, entry)
        if os.path.isfile(path):
            node = shutil.which("node", path=_PATH)
            if node is None:
                raise NoProgram(f"the package has {_NODE_CLIENT}, and there is no node in {_PATH}")
            named = _named(handler, "index.handler")
            return Program([node, path, named], named)
    raise NoProgram(
        f"the package has no program for the Runtime API: neither an executable {BOOTSTRAP} at its top or named by the "
        f"handler, nor {_PYTHON_CLIENT} (add it to `dependencies`), nor {_NODE_CLIENT} (`npm install {_NODE_CLIENT}`)"
    )


def _named(handler: str, usual: str) -> str:
    return usual if handler == _DEFAULT_HANDLER else handler


def arn(function: str) -> str:
    """Returns what AWS would call a function."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"


def environment(specification: Mapping[str, Any], handler: str, port: int) -> dict[str, str]:
    """Returns all variables of the program. The function's own come before the usual ones, and after what is AWS's.

    Args:
        specification: what the cell was told to become.
        handler: see `Program`.
        port: of the Runtime API.
    """
    code, name = specification["code"], specification["function"]
    paths = [code] if specification["dependencies"] is None else [code, specification["dependencies"]]
    return {
        **_BASE_ENVIRONMENT,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LD_LIBRARY_PATH": os.pathsep.join((code, os.path.join(code, "lib"))),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **specification["environment"],
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": code,
        "LAMBDA_RUNTIME_DIR": code,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": str(specification["revision"]),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(specification.get("memory", 128 * _MiB) // _MiB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"[{specification['revision']}]",
        "MARTLET_FUNCTION": name,
        "MARTLET_REVISION": str(specification["revision"]),
    }
