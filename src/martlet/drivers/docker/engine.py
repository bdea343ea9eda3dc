"""The Engine API over its unix socket, as far as cells need it. Docker Engine speaks it, and the service of podman.

https://docs.docker.com/reference/api/engine/. Each call has a deadline: an engine may hang.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import orjson

from martlet.drivers.driver import DriverError
from martlet.http.fetch import FetchError, fetch
from martlet.sandbox.cgroups import Limits

PERIOD_US = 100_000
PATIENCE = 30.0
_GREETING_SECONDS = 5.0
_UPLOAD_SECONDS = 600.0
_LIBPOD = "v4.0.0/libpod"


class EngineError(DriverError):
    """The engine refused, or did not answer in time. ``status`` is that of its answer; None: there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """An engine that answered at ``socket``. Make one with `connect`.

    Attributes:
        podman: whether it is podman, which wants some things in another way.
    """

    def __init__(self, socket: Path, patience: float, *, podman: bool) -> None:
        self.socket, self.podman = socket, podman
        self._patience = patience

    @classmethod
    async def connect(cls, socket: Path, patience: float = PATIENCE) -> Engine:
        """Returns the engine that listens at ``socket``; a call may take it ``patience`` seconds.

        Raises:
            EngineError: it does not answer.
        """
        # Not its version: for that podman has dpkg search the files of all packages, a second or so of a core.
        greeting = min(patience, _GREETING_SECONDS)
        podman = True
        try:
            await _call(socket, "GET", f"/{_LIBPOD}/_ping", patience=greeting)
        except EngineError as error:
            if error.status != 404:
                raise
            podman = False
            await _call(socket, "GET", "/_ping", patience=greeting)
        return cls(socket, patience, podman=podman)

    async def create(self, name: str, configuration: Mapping[str, Any]) -> str:
        """Creates a container and returns its id."""
        said = await self._call("POST", f"/containers/create?{urlencode({'name': name})}", configuration)
        return str(said["Id"])

    async def start(self, container: str) -> None:
        """Starts a container."""
        await self._call("POST", f"/containers/{container}/start")

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """Returns what the engine knows of a container, by id or name; None where there is none."""
        return await self._find(f"/containers/{container}/json")

    async def wait(self, container: str, patience: float) -> int:
        """Waits for the end of a container and returns its exit code, over 128 where a signal ended it."""
        # podman looks again and again, by default four times a second.
        target = f"/containers/{container}/wait?condition=not-running&interval=10ms"
        return int((await self._call("POST", target, patience=patience))["StatusCode"])

    async def remove(self, container: str) -> None:
        """Kills and removes a container, by id or name; harmless where there is none."""
        try:
            await self._call("DELETE", f"/containers/{container}?force=true&v=true")
        except EngineError as error:
            if error.status == 409 and "already in progress" in str(error):
                await self.wait_for_removal(container)
            elif error.status != 404:
                raise

    async def wait_for_removal(self, container: str) -> None:
        """Waits until a container that is being removed is gone."""
        try:
            await self._call("POST", f"/containers/{container}/wait?condition=removed")
        except EngineError as error:
            if error.status != 404:
                raise

    async def limit(self, container: str, limits: Limits) -> None:
        """Gives a running container other limits."""
        if self.podman:
            await self._call("POST", f"/{_LIBPOD}/containers/{container}/update", _for_podman(limits))
        else:
            await self._call("POST", f"/containers/{container}/update", resources(limits))

    async def labelled(self, labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Returns the containers with these labels, running or not: their labels by id."""
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        said = await self._call("GET", f"/containers/json?{urlencode({'all': 'true', 'filters': filters})}")
        return {each["Id"]: each["Labels"] or {} for each in said}

    async def image(self, name: str) -> str | None:
        """Returns the id of an image; None where there is none of this name."""
        found = await self._find(f"/images/{quote(name)}/json")
        return None if found is None else str(found["Id"])

    async def images(self) -> list[str]:
        """Returns the names of all images."""
        return [name for image in await self._call("GET", "/images/json") for name in image["RepoTags"] or ()]

    async def remove_image(self, name: str) -> None:
        """Removes an image. Raises `EngineError` where a container has it."""
        await self._call("DELETE", f"/images/{quote(name)}")

    async def import_image(self, name: str, tar: BinaryIO) -> None:
        """Makes an image of the files in an archive, in place of one of the same name."""
        target = f"/images/create?{urlencode({'fromSrc': '-', 'repo': name})}"
        answer = await self._call("POST", target, upload=tar, patience=_UPLOAD_SECONDS)
        if "error" in answer:
            who = "podman" if self.podman else "Docker Engine"
            raise EngineError(f"{who} did not take the image {name}: {answer['error']}")

    async def _find(self, target: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call("GET", target)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def _call(
        self,
        method: str,
        target: str,
        document: Any = None,
        *,
        upload: BinaryIO | None = None,
        patience: float | None = None,
    ) -> Any:
        patience = patience or self._patience
        return await _call(self.socket, method, target, document, upload=upload, patience=patience)


def resources(limits: Limits) -> dict[str, Any]:
    """Returns limits as the API has them; no swap beside the memory."""
    return {
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "CpuPeriod": PERIOD_US,
        "CpuQuota": limits.quota_us,
        "PidsLimit": limits.processes,
    }


def _for_podman(limits: Limits) -> dict[str, Any]:
    """Returns limits as podman's own part of the API has them."""
    return {
        "memory": {"limit": limits.memory, "swap": limits.memory},
        "cpu": {"period": PERIOD_US, "quota": limits.quota_us},
        "pids": {"limit": limits.processes},
    }


async def _call(
    socket: Path,
    method: str,
    target: str,
    document: Any = None,
    *,
    upload: BinaryIO | None = None,
    patience: float,
) -> Any:
    """Returns the document that was answered, the last one of several; an empty one where there is none."""
    try:
        status, body = await fetch(socket, method, target, document, upload=upload, timeout=patience)
    except FetchError as error:
        raise EngineError(f"the engine at {socket} does not answer: {error}") from error
    said = list(_documents(body))
    last = said[-1] if said else {}
    if status >= 400:
        words = last.get("message", "") if isinstance(last, dict) else ""
        raise EngineError(f"the engine at {socket} refused: {words or body[:200].decode('latin-1')}", status)
    return last


def _documents(body: bytes) -> Iterator[Any]:
    """Yields the documents of an answer: progress is reported in one a line."""
    try:
        yield orjson.loads(body)
    except orjson.JSONDecodeError:
        for line in body.splitlines():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
