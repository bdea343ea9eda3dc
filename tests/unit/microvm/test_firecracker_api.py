"""The client against Firecracker's own description of its API: what it sends, what it understands, and for how long."""

import asyncio
import re
import threading
import types
import typing
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from martlet.microvm.firecracker import models, vsock
from martlet.microvm.firecracker.client import Firecracker
from martlet.microvm.firecracker.errors import FirecrackerError, NoAnswer, Refused
from martlet.microvm.firecracker.models import (
    BootSource,
    Drive,
    MachineConfiguration,
    MemoryBackend,
    MmdsConfig,
    NetworkInterface,
    Patch,
    Put,
    RateLimiter,
    SnapshotLoad,
)
from tests.fake_firecracker import response
from tests.firecracker_api import Operation, description

SENT: list[type[Put] | type[Patch]] = [
    kind
    for kind in vars(models).values()
    if isinstance(kind, type) and issubclass(kind, Put | Patch) and kind not in (Put, Patch)
]
NAMES = {
    "DriveUpdate": "PartialDrive",
    "NetworkInterfaceUpdate": "PartialNetworkInterface",
    "CpuidRegister": "CpuidRegisterModifier",
    "CpuidLeaf": "CpuidLeafModifier",
    "Msr": "MsrModifier",
    "ArmRegister": "ArmRegisterModifier",
    "SnapshotCreate": "SnapshotCreateParams",
    "SnapshotLoad": "SnapshotLoadParams",
}
"""What the description calls models that have a name of their own here."""
LEFT_OUT = {
    "MachineConfiguration": {"cpu_template"},  # deprecated
    "Vsock": {"vsock_id"},  # deprecated
    "SnapshotLoad": {"mem_file_path", "enable_diff_snapshots"},  # deprecated
}
NOT_OFFERED = {
    "startBalloonHinting",
    "describeBalloonHinting",
    "stopBalloonHinting",
    "putGuestPmemByID",
    "patchGuestPmemByID",
    "putSerialDevice",
    "putMemoryHotplug",
    "patchMemoryHotplug",
    "getMemoryHotplug",
    "patchMachineConfiguration",  # takes what PUT takes
    "getExportVmConfig",
}
SIMPLE_CALLS = {
    "start": "createSyncAction",
    "flush_metrics": "createSyncAction",
    "send_ctrl_alt_del": "createSyncAction",
    "pause": "patchVm",
    "resume": "patchVm",
    "mmds": "getMmds",
    "version": "getFirecrackerVersion",
    "info": "describeInstance",
    "machine_config": "getMachineConfiguration",
    "balloon": "describeBalloonConfig",
    "balloon_stats": "describeBalloonStats",
}
METADATA_CALLS = {"put_mmds": "putMmds", "patch_mmds": "patchMmds"}


class Server:
    """Answers every connection with the same bytes, and remembers what was asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answer = b""
        self.closes = True
        self.requests: list[bytes] = []
        self.loop = asyncio.new_event_loop()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(1 << 20)
        length = re.search(rb"content-length: ([0-9]+)", request)
        missing = int(length[1]) - len(request.partition(b"\r\n\r\n")[2]) if length else 0
        if missing > 0:
            request += await reader.readexactly(missing)
        self.requests.append(request)
        writer.write(self.answer)
        try:
            if not self.closes:
                await reader.read()
        finally:
            writer.close()

    async def end(self) -> None:
        """Ends what still waits for somebody to go."""
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    @property
    def asked(self) -> tuple[str, str, Any]:
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        method, path, _ = head.decode().split(" ", 2)
        return method, path, orjson.loads(body) if body else None


@contextmanager
def running(socket: Path) -> Iterator[Server]:
    server = Server(socket)
    opened = server.loop.run_until_complete(asyncio.start_unix_server(server.converse, str(socket)))
    thread = threading.Thread(target=server.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(opened.close)
        asyncio.run_coroutine_threadsafe(server.end(), server.loop).result()
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join()
        server.loop.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("api") / "sock") as server:
        yield server


def values(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Draws values of an annotation of a model, most of which the model takes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values(arguments[0], tuple(arguments[1:]))
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if each is type(None) else values(each, metadata) for each in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return documents(annotation)
    if annotation is bool:
        return st.booleans()
    bounds = [part for each in metadata for part in getattr(each, "metadata", [each])]
    if annotation is int:
        least = [each.ge for each in bounds if getattr(each, "ge", None) is not None]
        most = [each.le for each in bounds if getattr(each, "le", None) is not None]
        return st.integers(least[0], most[0])
    assert annotation is str, annotation
    patterns = [each.pattern for each in bounds if getattr(each, "pattern", None)]
    if not patterns:
        return st.from_regex(r"169\.254\.[0-9]{1,2}\.[0-9]{1,2}", fullmatch=True)
    return st.from_regex(
        patterns[0].replace(r"\z", r"\Z"), fullmatch=True, alphabet=st.characters(codec="utf-8")
    )


@st.composite
def documents(draw: st.DrawFn, kind: type[BaseModel]) -> BaseModel:
    """Draws any document of a kind."""
    members = {
        name: draw(values(field.annotation, tuple(field.metadata)))
        for name, field in kind.model_fields.items()
        if field.is_required() or draw(st.booleans())
    }
    if kind is Drive:
        members.pop("socket" if draw(st.booleans()) else "path_on_host", None)
    try:
        return kind(**members)
    except ValidationError:
        assume(False)
        raise


def answers(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draws documents that a schema of the description allows."""
    if "$ref" in schema:
        return answers(description().definitions[schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return st.text(max_size=20)
        case "integer":
            return st.integers(schema.get("minimum", -(2**40)), schema.get("maximum", 2**40))
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(answers(schema["items"]), max_size=2)
    members = {name: answers(member) for name, member in schema.get("properties", {}).items()}
    required = set(schema.get("required", ()))
    described = st.fixed_dictionaries(
        {name: members[name] for name in members if name in required},
        optional={name: members[name] for name in members if name not in required},
    )
    more = st.dictionaries(st.text(max_size=5), st.integers(-5, 5) | st.text(max_size=5), max_size=2)
    return st.builds(lambda known, unknown: {**unknown, **known}, described, more)


def operation_of(kind: type[Put] | type[Patch]) -> Operation:
    method = "PUT" if issubclass(kind, Put) else "PATCH"
    return next(each for each in description().operations if (each.method, each.path) == (method, kind.path))


def by_id(name: str) -> Operation:
    return next(each for each in description().operations if each.id == name)


async def send(firecracker: Firecracker, document: Put | Patch) -> None:
    await (firecracker.put(document) if isinstance(document, Put) else firecracker.patch(document))


def outcome(call: Coroutine[Any, Any, Any]) -> Any:
    """Returns what a call came to: a value, or an error of ours that says what to do."""
    try:
        return asyncio.run(call)
    except FirecrackerError as error:
        found = error
    assert "What to do: " in str(found)
    return found


def members_sent(kind: type[BaseModel]) -> set[str]:
    return {field.serialization_alias or name for name, field in kind.model_fields.items()}


# -- what it sends


def test_every_operation_is_offered_or_left_out_on_purpose():
    offered = {operation_of(kind).id for kind in SENT} | {*SIMPLE_CALLS.values(), *METADATA_CALLS.values()}

    assert offered | NOT_OFFERED == {each.id for each in description().operations}
    assert not offered & NOT_OFFERED


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(models).values()
        if isinstance(kind, type) and issubclass(kind, models.Document | models.Answer) and kind.model_fields
    ],
)
def test_every_described_member_is_there_or_left_out_on_purpose(kind: type[BaseModel]):
    described = description().definitions[NAMES.get(kind.__name__, kind.__name__)]

    assert members_sent(kind) | LEFT_OUT.get(kind.__name__, set()) == set(described["properties"])


@pytest.mark.parametrize("kind", SENT)
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=15)
@given(data=st.data())
def test_any_document_is_sent_as_described(
    server: Server, kind: type[Put] | type[Patch], data: st.DataObject
):
    document = data.draw(documents(kind))
    server.answer = response(204, None)
    asyncio.run(send(Firecracker(server.socket), typing.cast(Put | Patch, document)))

    method, path, sent = server.asked
    operation = description().find(method, path)
    assert operation == operation_of(kind)
    assert description().faults(operation.request, sent, closed=True) == []
    assert sent == orjson.loads(document.model_dump_json(by_alias=True, exclude_none=True))


@pytest.mark.parametrize("name", [*SIMPLE_CALLS, *METADATA_CALLS])
def test_every_other_call_is_sent_as_described(server: Server, name: str):
    firecracker = Firecracker(server.socket)
    server.answer = response(500, {"fault_message": "enough"})
    arguments = [{"a": {"b": None}}] if name in METADATA_CALLS else []
    with pytest.raises(Refused, match="enough"):
        asyncio.run(getattr(firecracker, name)(*arguments))

    method, path, sent = server.asked
    operation = description().find(method, path)
    assert operation is not None
    assert operation.id == {**SIMPLE_CALLS, **METADATA_CALLS}[name]
    assert description().faults(operation.request, sent, closed=True) == []


@pytest.mark.parametrize(
    ("kind", "members", "named"),
    [
        (
            Drive,
            {"drive_id": "a/b", "is_root_device": True, "path_on_host": "x", "is_read_only": True},
            "drive_id",
        ),
        (Drive, {"drive_id": "a", "is_root_device": True}, "path_on_host or a socket"),
        (Drive, {"drive_id": "a", "is_root_device": True, "path_on_host": "x"}, "is_read_only"),
        (
            Drive,
            {"drive_id": "a", "is_root_device": True, "socket": "x", "is_read_only": True},
            "its backend",
        ),
        (MachineConfiguration, {"vcpu_count": 33, "mem_size_mib": 1}, "vcpu_count"),
        (MachineConfiguration, {"vcpu_count": 3, "mem_size_mib": 1, "smt": True}, "vcpu_count"),
        (MachineConfiguration, {"vcpu_count": 1, "mem_size_mib": 3, "huge_pages": "2M"}, "mem_size_mib"),
        (NetworkInterface, {"iface_id": "eth0", "host_dev_name": "a-name-of-16-char"}, "host_dev_name"),
        (NetworkInterface, {"iface_id": "eth0", "host_dev_name": "t", "guest_mac": "06:00"}, "guest_mac"),
        (MmdsConfig, {"network_interfaces": ()}, "network_interfaces"),
        (MmdsConfig, {"network_interfaces": ("a",), "ipv4_address": "10.0.0.1"}, "ipv4_address"),
        (MmdsConfig, {"network_interfaces": ("a",), "version": "V1"}, "version"),
        (BootSource, {"kernel_image_path": "a", "boot_arg": "typo"}, "boot_arg"),
        (BootSource, {"kernel_image_path": "a\0b"}, "kernel_image_path"),
        (
            SnapshotLoad,
            {
                "snapshot_path": "s",
                "mem_backend": MemoryBackend(backend_type="File", backend_path="m"),
                "huge_pages": "2M",
            },
            "huge_pages",
        ),
    ],
)
def test_what_firecracker_would_refuse_is_refused_by_name(kind: type[BaseModel], members: dict, named: str):
    with pytest.raises(ValidationError, match=named):
        kind(**members)


def test_documents_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        RateLimiter().ops = None


# -- what it understands


@pytest.mark.parametrize("name", SIMPLE_CALLS)
@settings(max_examples=15)
@given(data=st.data())
def test_any_described_answer_is_understood_or_precisely_refused(
    server: Server, name: str, data: st.DataObject
):
    operation = by_id(SIMPLE_CALLS[name])
    status = data.draw(st.sampled_from([*operation.answers]))
    schema = operation.answers[status]
    code = int(status) if status.isdigit() else data.draw(st.sampled_from([401, 404, 413, 500, 501]))
    document = None if schema is None else data.draw(answers(schema))
    assert description().faults(schema, document) == []
    server.answer = response(code, document)

    found = outcome(getattr(Firecracker(server.socket), name)())
    if isinstance(found, Refused):
        said = document.get("fault_message")
        assert code >= 400
        assert found.status == code
        assert (
            said is None or not said.isprintable() or found.fault == (said.strip() or "no reason was given")
        )
    elif isinstance(found, FirecrackerError):
        # The description has no bounds here, and the models have.
        assert name in ("balloon", "machine_config")
        assert re.search(r"makes no sense: (vcpu_count|mem_size|amount_mib|stats_polling)", str(found))
    else:
        assert code in (200, 204)
        if isinstance(found, BaseModel):
            assert found.model_dump(exclude_none=True).items() <= document.items()


fields = st.sampled_from(
    [
        b"Content-Length: 2",
        b"Content-Length: 9",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked",
        b"Odd",
        b"A: b",
    ]
)
broken = st.binary(max_size=60) | st.builds(
    lambda start, lines, body: (
        b"%b\r\n%b\r\n%b" % (start, b"".join(b"%b\r\n" % line for line in lines), body)
    ),
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 204 ",
            b"HTTP/1.1 400 ",
            b"HTTP/1.1 99999 ",
            b"HTTP/1.0 200 ",
            b"OK 5",
        ]
    ),
    st.lists(fields, max_size=3),
    st.sampled_from(
        [b"", b"{}", b"[]", b"null", b"{", b'{"firecracker_version": 1}', b"2\r\n{}\r\n0\r\n\r\n"]
    )
    | st.binary(max_size=20),
)


@settings(max_examples=60)
@given(answer=broken)
def test_any_answer_ends_a_call(server: Server, answer: bytes):
    server.answer = answer
    firecracker = Firecracker(server.socket, patience=5)
    for call in (firecracker.version, firecracker.pause, firecracker.mmds):
        outcome(call())


@settings(max_examples=50)
@given(
    answer=st.binary(max_size=30)
    | st.from_regex(rb"OK [0-9]{1,12}\n", fullmatch=True).map(lambda line: line + b"x")
)
def test_any_answer_ends_a_greeting(server: Server, answer: bytes):
    server.answer = answer

    async def connect() -> None:
        transport, _ = await vsock.connect(server.socket, 5, asyncio.Protocol, timeout=5)
        transport.abort()

    accepted = not isinstance(outcome(connect()), FirecrackerError)
    assert accepted == bool(re.match(rb"OK [0-9]{1,10}\n", answer))


def test_the_reason_of_a_refusal_is_kept_short_and_plain(server: Server):
    server.answer = response(400, {"fault_message": "a\x1b[31mb\n" + "x" * 5000})
    with pytest.raises(Refused) as refused:
        asyncio.run(Firecracker(server.socket).pause())
    assert refused.value.fault.startswith("a [31mb xxx")
    assert len(refused.value.fault) <= 1000


# -- for how long


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 ", response(200, {"firecracker_version": "1"})[:-3]])
def test_silence_ends_when_patience_does(tmp_path: Path, answer: bytes):
    with running(tmp_path / "sock") as server:
        server.answer, server.closes = answer, False
        with pytest.raises(NoAnswer, match=r"GET /version: there was no answer within 0\.1 s"):
            asyncio.run(Firecracker(server.socket, patience=0.1).version())
        with pytest.raises(NoAnswer, match=r"within 0\.1 s"):
            asyncio.run(Firecracker.connect(server.socket, patience=0.1))


def test_a_guest_that_does_not_accept_is_not_waited_for(tmp_path: Path):
    with running(tmp_path / "sock") as server:
        server.closes = False
        with pytest.raises(NoAnswer, match=r"did not accept at port 5 within 0\.1 s. What to do: "):
            asyncio.run(vsock.connect(server.socket, 5, asyncio.Protocol, timeout=0.1))


def test_an_endless_answer_ends(tmp_path: Path):
    with running(tmp_path / "sock") as server:
        server.answer = b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n" + b"x" * (2 << 20)
        with pytest.raises(NoAnswer, match="not a complete answer"):
            asyncio.run(Firecracker(server.socket).version())


def test_who_does_not_answer_is_told_apart(tmp_path: Path):
    socket = tmp_path / "sock"
    with pytest.raises(NoAnswer, match="there is no socket"):
        asyncio.run(Firecracker(socket).version())
    with running(socket) as server, pytest.raises(NoAnswer, match="not a complete answer"):
        asyncio.run(Firecracker(server.socket).version())
    with pytest.raises(NoAnswer, match=r"there is no socket|its process has ended"):
        asyncio.run(Firecracker(socket).version())


def test_a_link_in_the_place_of_a_socket_is_not_followed(tmp_path: Path, server: Server):
    asked = len(server.requests)
    (tmp_path / "link").symlink_to(server.socket)
    (tmp_path / "file").touch()
    for at in (tmp_path / "link", tmp_path / "file"):
        with pytest.raises(NoAnswer, match="what is there is no socket"):
            asyncio.run(Firecracker(at).put_mmds({"martlet": "secret"}))
        with pytest.raises(NoAnswer, match="does not take connections"):
            asyncio.run(vsock.connect(at, 5, asyncio.Protocol, timeout=5))
    assert len(server.requests) == asked


def test_a_path_may_be_longer_than_sockets_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with running(Path("sock")) as server:
        server.answer = response(200, {"firecracker_version": "1.12.1"})
        assert asyncio.run(Firecracker(folder / "sock").version()) == "1.12.1"


def test_a_firecracker_that_starts_late_is_waited_for(tmp_path: Path):
    late = Server(tmp_path / "sock")
    late.answer = response(200, {"firecracker_version": "1.12.1"})

    async def scene() -> None:
        waiting = asyncio.create_task(Firecracker.connect(late.socket, patience=30))
        await asyncio.sleep(0)
        assert not late.socket.exists()
        async with await asyncio.start_unix_server(late.converse, str(late.socket)):
            assert await (await waiting).version() == "1.12.1"

    asyncio.run(scene())
    late.loop.close()
