"""What proves that a machine is of the cluster: its key, its certificate, and the authority that signed it.

cluster/ca.crt      the authority, on every machine
cluster/ca.key      its key, on the one where the cluster began
cluster/node.crt    this machine's certificate, for the id of its node
cluster/node.key    its key, which never leaves the machine
"""

from __future__ import annotations

import ssl
from pathlib import Path

from martlet.errors import Invalid


class Identity:
    """The files of the data folder; see the module."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "cluster"
        self.authority = self.folder / "ca.crt"
        self.authority_key = self.folder / "ca.key"
        self.certificate = self.folder / "node.crt"
        self.key = self.folder / "node.key"

    def check(self) -> None:
        """Looks whether others can be asked and answered. Raises `Invalid`."""
        try:
            self.towards_others()
        except (OSError, ssl.SSLError) as error:
            raise Invalid(
                f"system.peer_address, system.roles: this machine has no certificate of the cluster ({error}): run "
                "`martlet cluster init` on the first machine, `martlet cluster join` on the others",
                field="system.peer_address",
            ) from None

    def towards_others(self) -> ssl.SSLContext:
        """Returns how this machine connects to others. Raises OSError."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.authority))
        return self._of_this_machine(context)

    def for_others(self) -> ssl.SSLContext:
        """Returns how others are let in: with a certificate of the authority, or not at all. Raises OSError."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority))
        context.verify_mode = ssl.CERT_REQUIRED
        return self._of_this_machine(context)

    def _of_this_machine(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate, self.key)
        return context

    def write(self, file: Path, content: bytes) -> None:
        """Writes one of the files, all of it or nothing, for this user only."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(f"{file.suffix}.new")
        fresh.touch(0o600)
        fresh.write_bytes(content)
        fresh.replace(file)
