"""What went wrong with Firecracker, as one tree; each message ends with what to do about it.

FirecrackerError
├── NoAnswer     nobody answered, or not in time
├── BadAnswer    what came is no answer to what was asked
├── Refused      Firecracker said no, and why
└── JailError    a jail cannot be made as it was described, or not be removed
"""

from __future__ import annotations

import json
import re

_LONGEST = 1000
_HTTP_FAULT = re.compile(rb'\{ "error": "([^"\n]+)')
_REMEDIES = {
    r"unknown field": "use a release of Firecracker that knows this member, or leave it out",
    r"not supported after starting": "do this before the microVM starts, or before the snapshot is loaded",
    r"not supported before starting": "start the microVM, or load a snapshot, first",
    r"unavailable while running": "pause the microVM first",
    r"not allowed after configuring boot-specific": (
        "load the snapshot into a Firecracker that has just started; only a logger and metrics may be set before"
    ),
    r"limit exceeded|size limit|payload with size|larger than the limit": (
        "make the document smaller, or start Firecracker with a higher --mmds-size-limit and "
        "--http-api-max-payload-size"
    ),
    r"address (already )?in use": "remove the socket that a former microVM has left at this path",
    r"tap device|tap interface": (
        "make the tap in the network namespace of Firecracker, for its user, and give it to one microVM only"
    ),
    r"kvm": (
        "run martlet doctor: /dev/kvm must be there and open for the user of Firecracker, and not be taken away by its "
        "cgroup"
    ),
    r"no such file|os error 2\b": (
        "give a path that exists where Firecracker looks: below its chroot, where it is jailed"
    ),
    r"permission denied|os error 13\b": "let the user of Firecracker read the file, and write it if the guest does",
    r"snapshot.*version|version.*snapshot|magic|crc|file length": (
        "make the snapshot anew with this release of Firecracker"
    ),
}
"""By what a fault has in it, the first that fits."""
_OTHERWISE = "compare what was sent with what this release of Firecracker documents, and read its log"


class FirecrackerError(Exception):
    """See the module."""


class NoAnswer(FirecrackerError):
    """Nobody answered, or not in time."""


class BadAnswer(FirecrackerError):
    """What came is no answer to what was asked."""


class JailError(FirecrackerError):
    """A jail cannot be made as it was described, or not be removed."""


class Refused(FirecrackerError):
    """Firecracker said no.

    Attributes:
        status: of the answer.
        fault: why, in its own words.
        remedy: what to do about it.
    """

    def __init__(self, call: str, status: int, fault: str) -> None:
        self.status = status
        self.fault = (
            "".join(c if c.isprintable() else " " for c in fault[:_LONGEST]).strip() or "no reason was given"
        )
        self.remedy = remedy_for(self.fault)
        super().__init__(
            f"Firecracker refused {call} ({status}): {self.fault.rstrip('.')}. What to do: {self.remedy}"
        )


def fault_of(body: bytes) -> str:
    """Returns why something was refused.

    What Firecracker's HTTP server says by itself is not always JSON, and may go on with parts of the request: there may
    be secrets in those.
    """
    try:
        said = json.loads(body)
    except ValueError:
        match = _HTTP_FAULT.match(body)
        return match[1].decode(errors="replace") if match else ""
    for name in ("fault_message", "error"):
        if isinstance(said, dict) and isinstance(said.get(name), str):
            return str(said[name])
    return ""


def remedy_for(fault: str) -> str:
    """Returns what a person can do about a fault of Firecracker's."""
    found = (remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, fault, re.IGNORECASE))
    return next(found, _OTHERWISE)
