"""Reaches for services that are not meant for it."""

import errno
import os
import socket

from attempts import handle as handle

PATIENCE = 0.3


def _outcome(connect, *address):
    try:
        connect(*address)
    except TimeoutError:
        return "ETIMEDOUT"
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "connected"


def connect(*addresses):
    """Connects to hosts and ports; returns what came of each."""

    def to(host, port):
        socket.create_connection((host, port), PATIENCE).close()

    return {f"{host}:{port}": _outcome(to, host, port) for host, port in addresses}


def connect_to_files(*paths):
    """Connects to unix sockets, by path or (with @) by abstract name."""

    def to(path):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect("\0" + path[1:] if path.startswith("@") else path)

    return {path: _outcome(to, path) for path in paths}


def send_datagrams(*addresses):
    """Sends UDP, which tells nobody of its failure but the kernel."""

    def to(host, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((host, port))
            client.send(b"x")

    return {f"{host}:{port}": _outcome(to, host, port) for host, port in addresses}


def serve(port):
    """Listens on a port of all addresses, for whoever comes."""
    globals()["kept"] = socket.create_server(("0.0.0.0", port))
    return globals()["kept"].getsockname()[1]


def own_socket():
    """Connects to the socket that it is served by, whose name it can ask for; returns what came of it."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            listener = socket.socket(fileno=os.dup(descriptor))
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return connect_to_files(listener.getsockname())
        except OSError:
            continue
    return {}


def interfaces():
    """The network interfaces it sees."""
    return [name for _, name in socket.if_nameindex()]
