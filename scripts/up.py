"""Starts Martlet in the foreground in development mode, deploys examples/hello and shows its answer.

Ctrl-C ends all of it. PORT and DATA (the data folder) may be set in the environment.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
MARTLET = Path(sys.executable).with_name("martlet")
PORT = os.environ.get("PORT", "8000")
DATA = os.environ.get("DATA", ".martlet")
URL = f"http://127.0.0.1:{PORT}"
KEY = "demo-key"


def main() -> int:
    """Runs the server until it ends; returns its exit code."""
    # The server gets a process group of its own, and the terminal with it. So Ctrl-C reaches the server
    # once, and not `make`, which would report it as a failure.
    server = subprocess.Popen(
        [MARTLET, "serve", "--dev", "--port", PORT, "--data", DATA], cwd=ROOT, process_group=0
    )
    give_terminal_to(server.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: server.send_signal(signal.SIGINT))
    greeter = threading.Thread(target=greet, args=(server,))
    greeter.start()
    status = server.wait()
    greeter.join()
    give_terminal_to(os.getpgrp())
    return status


def give_terminal_to(group: int) -> None:
    """Makes a process group the one that the terminal, if there is one, sends Ctrl-C to."""
    if sys.stdin.isatty():
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(sys.stdin.fileno(), group)


def greet(server: subprocess.Popen[bytes]) -> None:
    """Deploys the example once the server is ready, and invokes it, by the commands a person would type."""
    while not ready():
        if server.poll() is not None:
            return
        time.sleep(0.05)
    if martlet("deploy", "examples/hello") and martlet("invoke", "hello", '{"name": "Ada"}'):
        print(
            f"\nhello is at {URL}/invoke/hello. Try it from another terminal:\n\n"
            f"  curl {URL}/invoke/hello -H 'Authorization: Bearer {KEY}' -d '{{\"name\": \"you\"}}'\n\n"
            "Ctrl-C stops Martlet.",
            flush=True,
        )


def ready() -> bool:
    """Whether the server accepts work."""
    try:
        return httpx2.get(f"{URL}/ready").is_success
    except httpx2.TransportError:
        return False


def martlet(*arguments: str) -> bool:
    """Shows and runs a command of the CLI; returns whether it succeeded."""
    print(f"\n$ {shlex.join(['martlet', *arguments])}", flush=True)
    environment = os.environ | {"MARTLET_URL": URL, "MARTLET_KEY": KEY}
    return subprocess.run([MARTLET, *arguments], cwd=ROOT, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
