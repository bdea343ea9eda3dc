"""Python's functions by the program protocol: for tests of the warden, which so run without any other toolchain.

``shim.py FOLDER``: where Martlet's Python shim lies.
"""

import json
import os
import socket
import sys
import time
import traceback

sys.path.insert(0, sys.argv[1])
from _martlet_python import instance, logs, process  # type: ignore[import-not-found]
from _martlet_python.spec import Spec  # type: ignore[import-not-found]

del sys.path[0]


def main() -> None:
    """Reads the specification, loads the code, says so, and serves."""
    listener = listen()
    process.prepare()
    logs.prepare()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    spec = Spec.from_json(json.loads(line))
    started = time.perf_counter()
    try:
        process.detach(on_sigterm=lambda *_: os._exit(0))
        logs.install()
        files = os.listdir(spec.code)
        process.become(spec, files)
        logs.tell_apart(one_at_a_time=spec.concurrency == 1)
        loaded = instance.load(spec, files)
        answer = {"mode": loaded.mode, "load_ms": (time.perf_counter() - started) * 1e3}
    except Exception as error:
        answer = {
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": traceback.format_exc(),
            }
        }
    with open(4, "w") as said:
        said.write(json.dumps(answer) + "\n")
    if "error" not in answer:
        loaded.run(listener, None)


def listen() -> socket.socket:
    """Returns what connections come from."""
    path = os.environ.get("MARTLET_SOCKET")
    if path is None:
        return socket.socket(fileno=3)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


main()
