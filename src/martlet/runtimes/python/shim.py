"""The Python shim as a program, for sandboxes that start it anew: ``python shim.py --socket PATH``."""

import argparse
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import _martlet_python  # type: ignore[import-not-found]

del sys.path[0]


def main() -> None:
    """Listens where the command line says, and lives the life of a cell."""
    parser = argparse.ArgumentParser(description="Runs one cell of the Python runtime.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="unix socket to make and listen on")
    where.add_argument(
        "--listen-fd", metavar="N", type=int, help="descriptor of a socket that listens already"
    )
    arguments = parser.parse_args()
    if arguments.socket is None:
        listener = socket.socket(fileno=arguments.listen_fd)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(arguments.socket)
        listener.listen(128)
    _martlet_python.prepare()
    _martlet_python.serve(listener)


if __name__ == "__main__":
    main()
