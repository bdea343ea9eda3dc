"""Mandatory access control: what AppArmor or SELinux of this machine has for containers, and what is in force."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from martlet.drivers.driver import Guarantee, State

_OF_ENGINES = ("docker-default", "crun-default", "containers-default", "cri-containerd", "nerdctl-default")
"""How the profiles are called that container engines load, which suit the containers of others as well."""
_CONTEXTS = ("lxc_contexts", "container_contexts")
_ENTRY = re.compile(r'^\s*(process|file)\s*=\s*"([^"]+)"', re.MULTILINE)
_POLICY = re.compile(r"^SELINUXTYPE=(\S+)", re.MULTILINE)
_UNCONFINED = ("unconfined", "")
_PROMISE = "AppArmor or SELinux confines containers as well"


@dataclass(frozen=True, slots=True)
class Labels:
    """What engines are told.

    Attributes:
        profile: of AppArmor; empty: none is loaded for containers.
        process: the context of SELinux that containers run in; empty: there is none.
        files: that of what an engine mounts for them.
    """

    profile: str = ""
    process: str = ""
    files: str = ""

    def __bool__(self) -> bool:
        return bool(self.profile or self.process)

    @classmethod
    def find(cls, kernel: Path = Path("/sys"), policies: Path = Path("/etc/selinux")) -> Self:
        """Returns those of this machine."""
        found = _contexts(policies) if (kernel / "fs/selinux/enforce").exists() else {}
        return cls(_profile(kernel), found.get("process", ""), found.get("file", ""))


def _profile(kernel: Path) -> str:
    lines = _text(kernel / "kernel/security/apparmor/profiles").splitlines()
    loaded = [line.removesuffix(" (enforce)") for line in lines if line.endswith(" (enforce)")]
    return next((name for name in loaded if name.startswith(_OF_ENGINES)), "")


def _contexts(policies: Path) -> dict[str, str]:
    policy = _POLICY.search(_text(policies / "config"))
    if policy is None:
        return {}
    texts = (_text(policies / policy[1] / "contexts" / name) for name in _CONTEXTS)
    return next((found for text in texts if (found := dict(_ENTRY.findall(text)))), {})


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def in_force(pid: int) -> str:
    """Returns what confines a process, as the kernel says; empty where nothing does."""
    current = _text(Path(f"/proc/{pid}/attr/current")).strip("\0\n ")
    return "" if current in _UNCONFINED else current


def guarantee(wanted: Labels, found: str) -> Guarantee:
    """Returns what becomes of a promise.

    Args:
        wanted: what this machine has.
        found: what was in force in a container (`in_force`).
    """
    if found:
        return Guarantee("container label", _PROMISE, State.HELD, f"by {found}", needed=False)
    if wanted:
        why = f"no container starts under {wanted.profile or wanted.process}"
        remedy = "see what the kernel's audit log says, or set system.container_label to none"
        return Guarantee("container label", _PROMISE, State.WEAKER, why, remedy, needed=False)
    why = "this machine has no profile of AppArmor for containers loaded, and no SELinux with a type for them"
    remedy = "load a profile as Docker and podman do, where the kernel has AppArmor; else do without"
    return Guarantee("container label", _PROMISE, State.MISSING, why, remedy, needed=False)
