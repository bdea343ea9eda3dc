"""A server that answers as Firecracker does: its description says what may be sent and answered, and when is said here.

It keeps the states of a microVM, makes and loads snapshots (files that say what was configured), has the vsock of a
guest and the metadata service that the guest reads. Nothing boots: the guest is what a test says it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httptools

from martlet.microvm.control import CONTROL, LINKS, VSOCK_PORTS
from martlet.microvm.firecracker import mmds
from tests.firecracker_api import Operation, description

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

VERSION = "1.17.0-dev"
PAYLOAD_LIMIT = MMDS_LIMIT = 51_200
NOT_STARTED, RUNNING, PAUSED = "Not started", "Running", "Paused"
BEFORE_BOOT = {
    "putGuestBootSource",
    "putLogger",
    "putMetrics",
    "putGuestDriveByID",
    "putGuestNetworkInterfaceByID",
    "putMachineConfiguration",
    "putCpuConfiguration",
    "putBalloon",
    "putGuestVsock",
    "putMmdsConfig",
    "putEntropyDevice",
    "loadSnapshot",
    "InstanceStart",
}
AFTER_BOOT = {
    "patchVm",
    "createSnapshot",
    "describeBalloonStats",
    "patchBalloon",
    "patchBalloonStatsInterval",
    "patchGuestDriveByID",
    "patchGuestNetworkInterfaceByID",
    "FlushMetrics",
    "SendCtrlAltDel",
}
"""As `rpc_interface.rs` of Firecracker has it; all else may be asked for at any time."""
NO_BOOT_RESOURCE = {"putLogger", "putMetrics", "putCpuConfiguration"}
"""What may be set before a snapshot is loaded."""


class Refusal(Exception):
    """What is answered with a fault."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class FakeFirecracker:
    """One microVM.

    Attributes:
        root: what it sees as its directory.
        state: of the guest.
        configured: the documents that were put, by path.
        calls: every request: method, path, document.
        invalid: why requests were not valid by the description.
        listeners: what listens in the guest, by port.
        ended: whether the process would have ended.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description = description()
        self.state = NOT_STARTED
        self.configured: dict[str, Any] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.invalid: list[str] = []
        self.listeners: dict[int, Handler] = {}
        self.metadata: Any = None
        self.ended = False
        self.metadata_port = 0
        self._boot_resource = False
        self._servers: list[asyncio.AbstractServer] = []
        self._sessions: dict[str, float] = {}
        self._conversations: set[asyncio.Task[Any]] = set()
        self._paused = asyncio.Event()
        self._paused.set()

    @property
    def api_socket(self) -> Path:
        return self.root / "api.sock"

    @property
    def vsock(self) -> Path:
        return self.root / self.configured["/vsock"]["uds_path"]

    async def open(self) -> None:
        await self._serve_unix(self.api_socket, self._converse)

    async def close(self) -> None:
        self.ended = True
        for server in self._servers:
            server.close()
        for task in [*self._conversations]:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def connect_to_host(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The guest connects to a port of the host."""
        return await asyncio.open_unix_connection(f"{self.vsock}_{port}")

    # -- the API

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.ended:
            request = await Request.read(reader)
            if request is None:
                return
            status, document = self._answer(request)
            if self.state == RUNNING and "/vsock" in self.configured and not self.vsock.exists():
                await self._serve_unix(self.vsock, self._greet)
            if self.state != NOT_STARTED and not self.metadata_port and "/mmds/config" in self.configured:
                server = await asyncio.start_server(self._task(self._tell_guest), "127.0.0.1", 0)
                self.metadata_port = server.sockets[0].getsockname()[1]
                self._servers.append(server)
            writer.write(response(status, document))
            await writer.drain()
            if self.ended:
                for server in self._servers:
                    server.close()

    def _answer(self, request: Request) -> tuple[int, Any]:
        if len(request.body) > PAYLOAD_LIMIT:
            size = (
                f"Request payload with size {len(request.body)} is larger than the limit of {PAYLOAD_LIMIT}"
            )
            said = f'{{ "error": "{size} allowed by server.\nAll previous unanswered requests will be dropped." }}'
            # The real one goes on with what it takes for further requests.
            return 400, said.encode() + b'{ "error": "Invalid header. Header: ' + request.body[
                -4000:
            ] + b'" }'
        try:
            document = json.loads(request.body) if request.body else None
        except ValueError:
            return 400, {"fault_message": "An error occurred when deserializing the json body of a request."}
        self.calls.append((request.method, request.path, document))
        operation = self.description.find(request.method, request.path)
        if operation is None:
            self.invalid.append(f"{request.method} {request.path} is not described")
            return 400, {
                "fault_message": f"Invalid request method and/or path: {request.method} {request.path}."
            }
        faults = self.description.faults(operation.request, document, closed=True)
        if faults:
            self.invalid.append(f"{request.method} {request.path}: {'; '.join(faults)}")
            unknown = re.search(r"\('(\w+)' was unexpected\)", faults[0])
            why = f"unknown field `{unknown[1]}`" if unknown else faults[0]
            return 400, {
                "fault_message": f"An error occurred when deserializing the json body of a request: {why}."
            }
        try:
            status, answer = self._act(operation, request.path, document)
        except Refusal as refusal:
            status, answer = refusal.status, {"fault_message": str(refusal)}
        schema = operation.answers.get(str(status), operation.answers["default"])
        assert not self.description.faults(schema, answer), (operation.id, status, answer)
        return status, answer

    def _act(self, operation: Operation, path: str, document: Any) -> tuple[int, Any]:
        name = document["action_type"] if operation.id == "createSyncAction" else operation.id
        if self.state == NOT_STARTED and name in AFTER_BOOT:
            raise Refusal("The requested operation is not supported before starting the microVM.")
        if self.state != NOT_STARTED and name in BEFORE_BOOT:
            raise Refusal("The requested operation is not supported after starting the microVM.")
        special = getattr(self, f"_{name}", None)
        if special is not None:
            found = special(document)
            return (204, None) if found is None else (200, found)
        if operation.method == "PUT" and name in BEFORE_BOOT:
            self._boot_resource |= name not in NO_BOOT_RESOURCE
            self._check_files(document)
            self.configured[path] = document
        elif operation.method == "PATCH":
            if path not in self.configured:
                raise Refusal(f"There is no device at {path}.")
            self.configured[path] |= document
        elif name not in ("FlushMetrics", "SendCtrlAltDel"):
            raise Refusal(f"Invalid request method and/or path: {operation.method} {path}.")
        return 204, None

    def _check_files(self, document: dict[str, Any]) -> None:
        for member in ("kernel_image_path", "initrd_path", "path_on_host", "log_path", "metrics_path"):
            if member in document and not (self.root / document[member]).exists():
                raise Refusal(f"{member}: No such file or directory (os error 2)")

    def _describeInstance(self, _: None) -> dict[str, Any]:
        return {"app_name": "Firecracker", "id": "fake", "state": self.state, "vmm_version": VERSION}

    def _getFirecrackerVersion(self, _: None) -> dict[str, Any]:
        return {"firecracker_version": VERSION}

    def _getMachineConfiguration(self, _: None) -> dict[str, Any]:
        usual = {"vcpu_count": 1, "mem_size_mib": 128, "smt": False, "track_dirty_pages": False}
        return {**usual, "cpu_template": "None", **self.configured.get("/machine-config", {})}

    def _describeBalloonConfig(self, _: None) -> dict[str, Any]:
        return dict(self._device("/balloon"))

    def _describeBalloonStats(self, _: None) -> dict[str, Any]:
        balloon = self._device("/balloon")
        if not balloon.get("stats_polling_interval_s"):
            raise Refusal("Statistics for the balloon device are not enabled")
        pages = balloon["amount_mib"] * 256
        return {
            "target_pages": pages,
            "actual_pages": pages,
            "target_mib": balloon["amount_mib"],
            "actual_mib": balloon["amount_mib"],
            "free_memory": 1 << 20,
        }

    def _patchBalloonStatsInterval(self, document: dict[str, Any]) -> None:
        balloon = self._device("/balloon")
        if not balloon.get("stats_polling_interval_s"):
            raise Refusal("Statistics for the balloon device are not enabled")
        balloon |= document

    def _device(self, path: str) -> dict[str, Any]:
        if path not in self.configured:
            raise Refusal("No balloon device found.")
        found: dict[str, Any] = self.configured[path]
        return found

    def _putMmdsConfig(self, document: dict[str, Any]) -> None:
        self._boot_resource = True
        for name in document["network_interfaces"]:
            if f"/network-interfaces/{name}" not in self.configured:
                raise Refusal("The list of network interface IDs contains one that does not exist.")
        self.configured["/mmds/config"] = document

    def _putMmds(self, document: Any) -> None:
        self._store(document)

    def _patchMmds(self, document: Any) -> None:
        if self.metadata is None:
            raise Refusal("The MMDS data store is not initialized.")
        self._store(merged(self.metadata, document))

    def _store(self, document: Any) -> None:
        if len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()) > MMDS_LIMIT:
            raise Refusal("The MMDS patch request doesn't fit: data store size limit exceeded.", 413)
        self.metadata = document

    def _getMmds(self, _: None) -> Any:
        return {} if self.metadata is None else self.metadata

    def _InstanceStart(self, _: dict[str, Any]) -> None:
        if "/boot-source" not in self.configured:
            raise Refusal("Cannot start microvm without kernel configuration.")
        self._bind_vsock()
        self.state = RUNNING

    def _patchVm(self, document: dict[str, Any]) -> None:
        self.state = RUNNING if document["state"] == "Resumed" else PAUSED
        (self._paused.set if self.state == RUNNING else self._paused.clear)()

    # -- snapshots

    def _createSnapshot(self, document: dict[str, Any]) -> None:
        if self.state != PAUSED:
            raise Refusal("Cannot save the microVM state: save/restore unavailable while running.")
        said = {"magic": "snapshot", "configured": self.configured}
        (self.root / document["snapshot_path"]).write_text(json.dumps(said))
        (self.root / document["mem_file_path"]).write_bytes(b"memory")

    def _loadSnapshot(self, document: dict[str, Any]) -> None:
        if self._boot_resource:
            raise Refusal("Loading a microVM snapshot not allowed after configuring boot-specific resources.")
        if ("mem_backend" in document) == ("mem_file_path" in document):
            raise Refusal("Either mem_backend or mem_file_path is needed.")
        try:
            self._restore(document)
        except Refusal:
            self.ended = True  # the real process is too dirty to go on then
            raise

    def _restore(self, document: dict[str, Any]) -> None:
        try:
            said = json.loads((self.root / document["snapshot_path"]).read_text())
            (self.root / document["mem_backend"]["backend_path"]).read_bytes()
        except OSError as error:
            raise Refusal(f"Failed to restore from snapshot: {error}") from error
        except ValueError as error:
            raise Refusal("Failed to get snapshot state: the snapshot has an invalid magic") from error
        self.configured = said["configured"]
        for each in document.get("network_overrides", ()):
            if f"/network-interfaces/{each['iface_id']}" not in self.configured:
                raise Refusal(f"network_overrides: unknown interface {each['iface_id']}")
            self.configured[f"/network-interfaces/{each['iface_id']}"] |= each
        if "vsock_override" in document:
            self.configured["/vsock"] |= document["vsock_override"]
        self._bind_vsock()
        self.state = RUNNING if document.get("resume_vm") else PAUSED
        (self._paused.set if self.state == RUNNING else self._paused.clear)()

    def _bind_vsock(self) -> None:
        if "/vsock" in self.configured and self.vsock.exists():
            raise Refusal("Error binding to the host-side Unix socket: Address in use (os error 98)")

    # -- the guest

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match = re.fullmatch(rb"CONNECT ([0-9]+)\n", await reader.readline())
        await self._paused.wait()
        if match is not None and int(match[1]) in self.listeners:
            writer.write(b"OK 1024\n")
            await self.listeners[int(match[1])](reader, writer)

    async def _tell_guest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The metadata service, as the guest sees it."""
        request = await Request.read(reader)
        if request is not None:
            status, body = self._metadata_answer(request)
            writer.write(response(status, body, b"application/json"))
            await writer.drain()

    def _metadata_answer(self, request: Request) -> tuple[int, bytes]:
        headers = request.headers
        if request.method == "PUT":
            seconds = headers.get("x-metadata-token-ttl-seconds", "")
            if request.path != "/latest/api/token" or "x-forwarded-for" in headers:
                return 400, b"bad request"
            if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return 400, b"bad time to live"
            token = secrets.token_urlsafe(24)
            self._sessions[token] = time.monotonic() + int(seconds)
            return 200, token.encode()
        if request.method != "GET":
            return 405, b"method not allowed"
        if self._sessions.get(headers.get("x-metadata-token", ""), 0) < time.monotonic():
            return 401, b"no valid session token"
        found = self.metadata
        for part in filter(None, request.path.split("/")):
            if not isinstance(found, dict) or part not in found:
                return 404, b"not found"
            found = found[part]
        if headers.get("accept") != "application/json" and not isinstance(found, str):
            return 501, b"not in this format"
        return 200, json.dumps(found).encode()

    # -- connections

    async def _serve_unix(self, path: Path, handler: Handler) -> None:
        self._servers.append(await asyncio.start_unix_server(self._task(handler), str(path)))

    def _task(self, handler: Handler) -> Handler:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._conversations.add(task)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                self._conversations.discard(task)
                writer.close()

        return run


class Request:
    """A request of HTTP/1.1."""

    def __init__(self) -> None:
        self.method = self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Request | None:
        request = cls()
        parser = httptools.HttpRequestParser(request)
        while not request.complete:
            data = await reader.read(65536)
            if not data:
                return None
            parser.feed_data(data)
        request.method = parser.get_method().decode()
        return request

    def on_url(self, url: bytes) -> None:
        self.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def response(status: int, document: Any, kind: bytes = b"application/json") -> bytes:
    """Returns an answer as Firecracker writes it: without a reason, and 204 without a length."""
    head = b"HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n" % status
    if document is None:
        return head + b"\r\n"
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return head + b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


def merged(target: Any, changes: Any) -> Any:
    """Returns what a JSON merge patch (RFC 7396) makes of a document."""
    if not isinstance(changes, dict):
        return changes
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@asynccontextmanager
async def fake_firecracker(root: Path):
    """A Firecracker whose requests were all valid by the description."""
    root.mkdir(parents=True, exist_ok=True)
    fake = FakeFirecracker(root)
    await fake.open()
    try:
        yield fake
    finally:
        await fake.close()
        with suppress(FileNotFoundError):
            fake.api_socket.unlink()
    assert fake.invalid == []


class Guest:
    """The agent of a guest, as far as a host can tell, behind the vsock of a `FakeFirecracker`."""

    def __init__(self, fake: FakeFirecracker) -> None:
        self._fake = fake
        self._told: dict[str, str] = {}
        self._equipped = asyncio.Event()
        for name, port in VSOCK_PORTS.items():
            fake.listeners[port] = (
                self._control if name == CONTROL else self._answer if name in LINKS else self._hold
            )

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "/boot-source" in {path for _, path, _ in self._fake.calls}:
            writer.write(b'{"event": "warm"}\n')
        while line := await reader.readline():
            message = json.loads(line)
            if message["op"] == "equip":
                port = self._fake.metadata_port
                while length := int.from_bytes(await reader.readexactly(4)):
                    await reader.readexactly(length)
                told = await asyncio.to_thread(mmds.read, message["token"], address="127.0.0.1", port=port)
                self._told = dict(told.secrets)
                self._equipped.set()
                writer.write(b'{"event": "equipped"}\n')
            elif message["op"] == "signal":
                writer.write(b'{"event": "exited", "code": 0, "oom_kills": 0}\n')

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says to whoever asks what the guest has been told, once it has, and what it was asked."""
        while True:
            request = b""
            while (length := int.from_bytes(await reader.readexactly(4))) not in (0, 0xFFFFFFFF):
                request += await reader.readexactly(length)
                if b"\r\n\r\n" in request:
                    await self._equipped.wait()
                    said = {"told": self._told, "asked": request.decode()}
                    answer = response(200, said)
                    writer.write(len(answer).to_bytes(4) + answer + bytes(4))

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()


class Written(list[Any]):
    """A list that a file has too, a line for each."""

    def __init__(self, at: Path) -> None:
        self._file = at.open("w", buffering=1)

    def append(self, item: Any) -> None:
        super().append(item)
        print(json.dumps(item), file=self._file)


async def main() -> None:
    """Is a Firecracker in the folder that it is started in, until it is killed; ``calls`` has what it was told."""
    fake = FakeFirecracker(Path())
    fake.calls, fake.invalid = Written(Path("calls")), Written(Path("invalid"))
    Guest(fake)
    await fake.open()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
