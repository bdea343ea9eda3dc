"""From what a request says to the revision that answers it."""

from __future__ import annotations

import re
from random import random
from typing import NamedTuple

from martlet.gateway.buckets import fingerprint
from martlet.model import LATEST, Revision
from martlet.node.target import Target
from martlet.storage.registry import RegistryView

INVOKE = b"/invoke/"
FUNCTIONS = b"/functions/"
AWS_INVOKE = b"/2015-03-31/functions/"
"""AWS Lambda's Invoke: the function sees all of the path, for its runtime to know what it is asked."""
RESOURCES = frozenset(
    {b"aliases", b"code", b"dead-letters", b"invocations", b"logs", b"revisions", b"rollback", b"scaling"}
)
"""What lies below ``/functions/{name}/`` and is management; everything else there is the function's own."""
MAX_HOSTS = 4096
_NUMBER = re.compile(r"[1-9][0-9]{0,7}")
"""A revision has one name: each name that leads to one is kept in memory, before anybody has shown a key."""


class Split(NamedTuple):
    """Targets with the share of requests that goes to each and all before it, from 0 to 1."""

    targets: tuple[tuple[float, Target], ...]

    def pick(self, at: float) -> Target:
        """Returns the target at a point between 0 and 1."""
        for share, target in self.targets:
            if at < share:
                return target
        return self.targets[-1][1]


class Route(NamedTuple):
    """Where a request goes: the function's name, the revision or alias asked for, and the path below its root."""

    name: bytes
    path: bytes


class Routing:
    """Names, aliases and hosts, resolved in memory."""

    def __init__(self, view: RegistryView, domain: str) -> None:
        self._view = view
        self._suffix = b"." + domain.encode()
        self._hosts: dict[bytes, bytes | None] = {}
        self._resolved: dict[bytes, Target | Split] = {}
        self._names: dict[str, set[bytes]] = {}
        view.on_change.append(self._forget)

    def route(self, target: bytes, host: bytes | None) -> Route | None:
        """Returns the function a request is for, or None where it is for the platform itself."""
        if host is not None:
            function = self._hosts.get(host, b"")
            if function == b"":
                function = self._function_of_host(host)
            if function is not None:
                return Route(function, target)
        if target.startswith(INVOKE):
            return _split(target, len(INVOKE))
        if target.startswith(AWS_INVOKE):
            name, _, action = target[len(AWS_INVOKE) :].partition(b"/")
            if action.partition(b"?")[0] == b"invocations":
                return Route(name.replace(b"%3A", b"@").replace(b":", b"@"), target)
        if target.startswith(FUNCTIONS):
            slash = target.find(b"/", len(FUNCTIONS))
            if slash > 0 and b"?" not in target[:slash]:
                below = target[slash + 1 :].partition(b"?")[0].partition(b"/")[0]
                if below not in RESOURCES:
                    return _split(target, len(FUNCTIONS))
        return None

    def resolve(self, name: bytes) -> Target | None:
        """Returns the target of ``hello``, ``hello@3`` or ``hello@live``; None where there is none in memory."""
        resolved = self._resolved.get(name)
        if resolved is None:
            resolved = self._look_up(name)
            if resolved is None:
                return None
            self._resolved[name] = resolved
        return resolved.pick(random()) if type(resolved) is Split else resolved  # type: ignore[return-value]  # noqa: S311

    def varies(self, name: bytes) -> bool:
        """Whether `resolve` may say something else the next time, although nothing has changed."""
        return type(self._resolved.get(name)) is Split

    def function_name(self, name: bytes) -> str | None:
        """Returns the function's part of ``hello@live``, or None where it cannot be a name."""
        try:
            return name.partition(b"@")[0].decode("ascii")
        except UnicodeDecodeError:
            return None

    def _look_up(self, name: bytes) -> Target | Split | None:
        function_name = self.function_name(name)
        function = self._view.functions.get(function_name) if function_name else None
        if function is None:
            return None
        self._names.setdefault(function.name, set()).add(name)
        reference = name.partition(b"@")[2].decode("ascii", "replace")
        if b"@" not in name or reference == LATEST:
            return self._target(function.name, function.latest)
        if _NUMBER.fullmatch(reference):
            return self._target(function.name, int(reference))
        alias = self._view.aliases.get(function.name, {}).get(reference)
        if alias is None:
            return None
        share, targets = 0, []
        for number, weight in alias.weights.items():
            target = self._target(function.name, number)
            if target is None:
                return None
            share += weight
            targets.append((share / 100, target))
        return Split(tuple(targets))

    def _target(self, function: str, number: int) -> Target | None:
        revision: Revision | None = self._view.revisions.get((function, number))
        if revision is None:
            return None
        return Target(revision, fingerprint("function", function))

    def _function_of_host(self, host: bytes) -> bytes | None:
        name = host.lower().rsplit(b":", 1)[0] if not host.endswith(b"]") else host
        function = name[: -len(self._suffix)] if name.endswith(self._suffix) else None
        if function is not None and (not function or b"." in function):
            function = None
        if len(self._hosts) >= MAX_HOSTS:
            self._hosts.clear()
        self._hosts[host] = function
        return function

    def _forget(self, kind: str, name: str) -> None:
        if kind != "key":
            for resolved in self._names.pop(name, ()):
                self._resolved.pop(resolved, None)


def _split(target: bytes, start: int) -> Route:
    """Splits ``/invoke/hello/a?b`` into ``hello`` and ``/a?b``."""
    end = target.find(b"/", start)
    query = target.find(b"?", start)
    if query >= 0 and (end < 0 or query < end):
        return Route(target[start:query], b"/" + target[query:])
    if end < 0:
        return Route(target[start:], b"/")
    return Route(target[start:end], target[end:])
