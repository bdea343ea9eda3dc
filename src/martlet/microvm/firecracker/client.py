"""The client of Firecracker's API. It holds no connection, and each call ends within its patience."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from martlet.http.fetch import FetchError, fetch
from martlet.microvm.firecracker.errors import BadAnswer, NoAnswer, Refused, fault_of
from martlet.microvm.firecracker.models import (
    Balloon,
    BalloonStats,
    FirecrackerVersion,
    InstanceInfo,
    MachineConfiguration,
    Patch,
    Put,
)
from martlet.microvm.firecracker.sockets import address_of

PATIENCE = 5.0
_MAX_ANSWER = 1024 * 1024
_RETRY_SECONDS = 0.002
_GET_OK, _OK = 200, 204

_Model = TypeVar("_Model", bound=BaseModel)


class Firecracker:
    """One microVM, by its API socket.

    Every method raises `Refused` when Firecracker says no, `NoAnswer` when it says nothing in time, and `BadAnswer`
    when what it says makes no sense.

    Args:
        socket: where it listens.
        patience: seconds that a call may take; those that write or read memory are given more by ``patience`` of `put`.
    """

    def __init__(self, socket: Path, patience: float = PATIENCE) -> None:
        self.socket = socket
        self._patience = patience

    @classmethod
    async def connect(cls, socket: Path, patience: float = PATIENCE) -> Firecracker:
        """Returns the Firecracker at ``socket`` once it answers: it takes some ms to start.

        That its process has ended is not known here: whoever has started it cancels this then.

        Raises:
            NoAnswer: it does not within ``patience`` seconds.
        """
        found = cls(socket, patience)
        last: NoAnswer | None = None
        try:
            async with asyncio.timeout(patience):
                while True:
                    try:
                        await found.version()
                        return found
                    except NoAnswer as error:
                        last = error
                    await asyncio.sleep(_RETRY_SECONDS)
        except TimeoutError:
            raise last or NoAnswer(_silence(socket, "GET /version", TimeoutError(), patience)) from None

    async def put(self, what: Put, patience: float | None = None) -> None:
        """Makes or replaces a resource: what it is decides where it goes."""
        await self._call("PUT", what.place(), what.sent(), patience=patience)

    async def patch(self, what: Patch) -> None:
        """Changes a resource."""
        await self._call("PATCH", what.place(), what.sent())

    async def start(self) -> None:
        """Boots the guest that has been put together."""
        await self._act("InstanceStart")

    async def pause(self) -> None:
        """Stops the guest's CPUs; only then a snapshot can be made."""
        await self._call("PATCH", "/vm", {"state": "Paused"})

    async def resume(self) -> None:
        """Lets the guest's CPUs go on."""
        await self._call("PATCH", "/vm", {"state": "Resumed"})

    async def flush_metrics(self) -> None:
        """Writes the metrics now."""
        await self._act("FlushMetrics")

    async def send_ctrl_alt_del(self) -> None:
        """Asks the guest to shut down (x86_64, with a keyboard driver)."""
        await self._act("SendCtrlAltDel")

    async def put_mmds(self, document: Mapping[str, Any]) -> None:
        """Replaces the guest's metadata (see `mmds`)."""
        await self._call("PUT", "/mmds", document)

    async def patch_mmds(self, changes: Mapping[str, Any]) -> None:
        """Changes the guest's metadata by a JSON merge patch: a member that is None is removed."""
        await self._call("PATCH", "/mmds", changes)

    async def mmds(self) -> dict[str, Any]:
        """Returns the guest's metadata."""
        found = await self._call("GET", "/mmds")
        if not isinstance(found, dict):
            raise BadAnswer(_nonsense("GET /mmds", "it is not an object"))
        return found

    async def version(self) -> str:
        """Returns the version, such as ``1.12.1``."""
        return (await self._get("/version", FirecrackerVersion)).firecracker_version

    async def info(self) -> InstanceInfo:
        """Returns what runs here and how far it has come."""
        return await self._get("/", InstanceInfo)

    async def machine_config(self) -> MachineConfiguration:
        """Returns the size of the guest."""
        return await self._get("/machine-config", MachineConfiguration)

    async def balloon(self) -> Balloon:
        """Returns the balloon as it was asked for."""
        return await self._get("/balloon", Balloon)

    async def balloon_stats(self) -> BalloonStats:
        """Returns what the guest last said of its memory."""
        return await self._get("/balloon/statistics", BalloonStats)

    async def _act(self, action: Literal["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]) -> None:
        await self._call("PUT", "/actions", {"action_type": action})

    async def _get(self, path: str, kind: type[_Model]) -> _Model:
        found = await self._call("GET", path)
        if isinstance(found, dict):
            found = {name: value for name, value in found.items() if name in kind.model_fields}
        try:
            return kind.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = "".join(f"{part}: " for part in first["loc"])
            why = where + first["msg"].removeprefix("Value error, ")
            raise BadAnswer(_nonsense(f"GET {path}", why)) from None

    async def _call(
        self, method: str, path: str, document: Any = None, *, patience: float | None = None
    ) -> Any:
        patience = patience or self._patience
        call = f"{method} {path}"
        try:
            with address_of(self.socket) as address:
                status, body = await fetch(
                    address, method, path, document, timeout=patience, at_most=_MAX_ANSWER
                )
        except (OSError, FetchError) as error:
            raise NoAnswer(_silence(self.socket, call, error, patience)) from error
        if status == _OK and method != "GET":
            return None
        if status != _GET_OK or method != "GET":
            raise Refused(call, status, fault_of(body))
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadAnswer(_nonsense(call, "it is not JSON")) from None


def _silence(socket: Path, call: str, error: OSError | FetchError, patience: float) -> str:
    match error.__cause__ if isinstance(error, FetchError) else error:
        case FileNotFoundError():
            why, remedy = (
                "there is no socket",
                "start Firecracker with --api-sock at this path, and read its log",
            )
        case ConnectionRefusedError():
            why, remedy = "its process has ended", "read its log, and start another one"
        case PermissionError():
            why, remedy = "this user may not use the socket", "run as root, or as the user of Firecracker"
        case OSError(errno=errno.ENOTSOCK):
            why, remedy = (
                "what is there is no socket",
                "give the path of its --api-sock; a link is not followed",
            )
        case TimeoutError():
            why, remedy = f"there was no answer within {patience:g} s", "read its log; end it if it hangs"
        case _:
            why, remedy = (
                f"what came is not a complete answer: {error}",
                "read its log, and start another one",
            )
    return f"Firecracker at {socket} did not answer {call}: {why}. What to do: {remedy}"


def _nonsense(call: str, why: str) -> str:
    return (
        f"Firecracker's answer to {call} makes no sense: {why}. What to do: use a release that Martlet supports "
        "(martlet doctor names them)"
    )
