"""What all containers of a lane are shown: the sandbox, with its filter of system calls, and names of hosts."""

from __future__ import annotations

from pathlib import Path

import martlet.sandbox
from martlet.model import Network
from martlet.sandbox.bundle import SANDBOX
from martlet.sandbox.inside import FILTER
from martlet.sandbox.root import HOSTS
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.policy import Policy

_CODE = "martlet/sandbox"
_RESOLVERS = "/etc/resolv.conf"


class Shown:
    """See the module. Containers that outlive a lane go on seeing it: `make` changes what differs only.

    Args:
        folder: where it is made.
        resolvers: the text of ``resolv.conf``, but for those who share the network of the host.
    """

    def __init__(self, folder: Path, resolvers: str) -> None:
        self._folder = folder
        self._resolvers = resolvers

    def make(self) -> None:
        """Makes it; may wait for the disk. Raises OSError."""
        (self._folder / "sandbox" / _CODE).mkdir(parents=True, exist_ok=True)
        filter_of_calls = bpf.compile(Policy.load())
        files = {"hosts": HOSTS.encode(), "resolv.conf": self._resolvers.encode()}
        for name, content in {f"sandbox/{FILTER}": filter_of_calls, **files}.items():
            file = self._folder / name
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)
            file.chmod(0o644)
        for folder in (self._folder, *self._folder.glob("sandbox/**/")):
            folder.chmod(0o755)

    def binds(self, network: Network) -> dict[str, str]:
        """Returns the files and folders of the host, by where they are seen; engines would name hosts too."""
        here = network is Network.HOST
        return {
            SANDBOX: str(self._folder / "sandbox"),
            f"{SANDBOX}/{_CODE}": str(Path(martlet.sandbox.__file__).parent),
            "/etc/hosts": str(self._folder / "hosts"),
            _RESOLVERS: _RESOLVERS if here else str(self._folder / "resolv.conf"),
        }
