"""Ports for servers that tests start."""

import os
import secrets
import socket
from pathlib import Path

LOWEST = 10_000
TRIES = 100
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a TCP port where nobody listens now, and which was not returned before.

    It is below those that the kernel gives to connections: else one could take it before the server does, or while the
    server is started anew. A client that tries again and again could even connect to itself. Nor is it one of those of
    another worker of the tests, whose server may be about to listen.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(TRIES):
        number = secrets.randbelow((ephemeral - LOWEST) // WORKERS)  # random may have been given a seed
        port = LOWEST + number * WORKERS + WORKER
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError(f"no port is free on {host}")
