"""Machines for tests of networks: namespaces with links between them, far from the network of the real one."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Clone

_OWN = "/proc/thread-self/ns/net"


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Moves this thread, and what it starts, into the namespace of a descriptor."""
    home = os.open(_OWN, os.O_RDONLY)
    syscalls.setns(namespace, Clone.NETWORK)
    try:
        yield
    finally:
        syscalls.setns(home, Clone.NETWORK)
        os.close(home)


def run_in(namespace: int, *command: str) -> str:
    """Runs a program in the namespace of a descriptor and returns what it prints."""
    with entered(namespace):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


MACHINE, REMOTE, OTHER, METADATA = "203.0.113.2", "203.0.113.1", "203.0.113.3", "169.254.169.254"
"""What is in the world of `machine_in_the_world`: itself, and what the other machine is called by."""


@contextmanager
def machine_in_the_world() -> Iterator[Namespace]:
    """Enters a machine that has a wire to another one; both serve on port 80 of all of their addresses."""
    machine, remote = Namespace(), Namespace()
    machine.link("wan", f"{MACHINE}/24", remote, "eth", f"{REMOTE}/24")
    for address in (OTHER, METADATA):
        remote.run("ip", "address", "add", f"{address}/32", "dev", "eth")
        remote.serve(address, 80)
    machine.run("ip", "route", "add", METADATA, "dev", "wan")
    remote.serve(REMOTE, 80)
    machine.serve(MACHINE, 80)
    try:
        with machine.entered():
            yield machine
    finally:
        machine.close()
        remote.close()


class Namespace:
    """A network namespace that ends with the test, with servers that listen in it."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        home = os.open(_OWN, os.O_RDONLY)
        syscalls.unshare(Clone.NETWORK)
        self._descriptor = os.open(_OWN, os.O_RDONLY)
        syscalls.setns(home, Clone.NETWORK)
        os.close(home)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        """What a program of this process's children may call it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Moves this thread, and what it starts, into the namespace."""
        with entered(self._descriptor):
            yield

    def run(self, *command: str) -> str:
        """Runs a program in the namespace and returns what it prints."""
        return run_in(self._descriptor, *command)

    def link(self, name: str, address: str, other: Namespace, other_name: str, other_address: str) -> None:
        """Lays a wire to another namespace; addresses have a prefix."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", other_name, "netns", other.path)
        for here, end, its in ((self, name, address), (other, other_name, other_address)):
            here.run("ip", "address", "add", its, "dev", end)
            here.run("ip", "link", "set", end, "up")

    def serve(self, address: str, port: int) -> None:
        """Listens; whoever connects is told from which address it came."""
        with self.entered():
            listener = socket.create_server(
                (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET
            )

        def greet() -> None:
            connection, client = listener.accept()
            with connection:
                connection.sendall(client[0].encode())

        self._start(listener, greet)

    def resolve(self, address: str, answer: str) -> None:
        """Answers every question for the address of a name with ``answer``."""
        with self.entered():
            resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            resolver.bind((address, 53))

        def respond(question: bytes, client: tuple[str, int]) -> None:
            if not question:
                raise ConnectionAbortedError("the socket is shut down")
            end = question.index(0, 12) + 5
            found = socket.inet_aton(answer) if question[end - 4 : end - 2] == b"\0\1" else b""
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + found if found else b""
            counts = b"\0\1" + bytes([0, 1 if found else 0]) + b"\0\0\0\0"
            resolver.sendto(question[:2] + b"\x81\x80" + counts + question[12:end] + record, client)

        self._start(resolver, lambda: respond(*resolver.recvfrom(512)))

    def sink(self, address: str, port: int) -> socket.socket:
        """Returns a socket that gets datagrams."""
        with self.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind((address, port))
        receiver.settimeout(60)
        self._listeners.append(receiver)
        return receiver

    def close(self) -> None:
        """Ends the servers and lets the namespace go."""
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        os.close(self._descriptor)

    def links(self, prefix: str) -> dict[str, int]:
        """Returns the names and numbers of the links that begin so."""
        with self.entered():
            return {name: index for index, name in socket.if_nameindex() if name.startswith(prefix)}

    def _start(self, listener: socket.socket, serve_one: Callable[[], None]) -> None:
        def serve() -> None:
            with suppress(OSError):
                while True:
                    serve_one()

        self._listeners.append(listener)
        threading.Thread(target=serve, daemon=True).start()
