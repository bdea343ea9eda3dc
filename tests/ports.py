"""Ports for servers that tests start."""

import secrets
import socket
from pathlib import Path

LOWEST = 10_000
TRIES = 100
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a TCP port where nobody listens now, and which was not returned before.

    It is below those that the kernel gives to connections: else one could take it before the server does, or while the
    server is started anew. A client that tries again and again could even connect to itself.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(TRIES):
        port = LOWEST + secrets.randbelow(ephemeral - LOWEST)  # random may have been given a seed
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
