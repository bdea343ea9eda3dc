"""A machine by scripts: booted, saved and restored with what is a clone's own, in one whole conversation."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from martlet.microvm.firecracker import mmds, script
from martlet.microvm.firecracker.errors import BadAnswer, NoAnswer, Refused
from martlet.microvm.firecracker.monitor import Monitor, Script
from tests.fake_firecracker import MMDS_LIMIT, NOT_STARTED, PAUSED, RUNNING, FakeFirecracker, fake_firecracker

pytestmark = pytest.mark.anyio

AGENT = 1024
BOOT = script.boot(
    kernel="vmlinux",
    initrd="initrd",
    words=("quiet", "panic=-1"),
    root="root",
    memory=512 << 20,
    vsock="v.sock",
)
SAVE = script.save(state="state", memory="memory")
RESTORE = script.restore(state="state", memory="memory")
Result = TypeVar("Result")


async def do(action: Callable[..., Result], *arguments: Any) -> Result:
    """Calls what waits, beside the Firecracker that answers."""
    return await asyncio.to_thread(action, *arguments)


def monitor(fake: FakeFirecracker, vsock: str = "v.sock", patience: float = 5.0) -> Monitor:
    return Monitor(str(fake.api_socket), str(fake.root / vsock), patience)


def furnish(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in ("vmlinux", "initrd", "root"):
        (root / name).touch()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)


def said_by_guest(machine: Monitor) -> bytes:
    with machine.connect(AGENT) as connection:
        connection.sendall(b"ping\n")
        return connection.recv(100)


def read(fake: FakeFirecracker, token: str) -> mmds.Metadata:
    return mmds.read(token, address="127.0.0.1", port=fake.metadata_port)


async def test_a_machine_boots_is_saved_and_goes_on_in_clones_of_their_own(tmp_path: Path):
    furnish(tmp_path / "template")
    async with fake_firecracker(tmp_path / "template") as template:
        template.listeners[AGENT] = echo
        machine = monitor(template)
        await do(machine.play, BOOT)
        assert template.state == RUNNING
        assert await do(said_by_guest, machine) == b"ping\n"
        await do(machine.play, SAVE)
        assert template.state == PAUSED

    tokens = []
    for number in range(2):
        async with fake_firecracker(tmp_path / f"clone{number}") as clone:
            clone.listeners[AGENT] = echo
            for name in ("state", "memory"):
                (clone.root / name).hardlink_to(template.root / name)
            machine = monitor(clone, f"v{number}.sock")
            travelled: Script = json.loads(
                json.dumps(
                    script.restore(
                        state="state", memory="memory", tap=f"tap{number}", vsock=f"v{number}.sock"
                    )
                )
            )

            await do(machine.play, travelled)

            assert clone.state == RUNNING
            assert clone.configured["/network-interfaces/eth0"]["host_dev_name"] == f"tap{number}"
            assert await do(said_by_guest, machine) == b"ping\n"
            tokens.append(await do(machine.tell, {"KEY": "ключ", "NUMBER": str(number)}))
            told = await do(read, clone, tokens[-1])
            assert told.secrets == {"KEY": "ключ", "NUMBER": str(number)}
            with pytest.raises(mmds.NotYours):
                await do(read, clone, tokens[0] if number else "another's")
            await do(machine.pause)
            assert clone.state == PAUSED
            await do(machine.resume)
            assert clone.state == RUNNING
        with pytest.raises(NoAnswer):
            await do(machine.pause)
    assert len(set(tokens)) == 2


async def test_a_clone_that_is_called_as_its_template_takes_nothing_that_old_releases_do_not_know(
    tmp_path: Path,
):
    ((_, path, document),) = RESTORE

    assert (path, set(document)) == ("/snapshot/load", {"snapshot_path", "mem_backend", "resume_vm"})


async def test_a_snapshot_that_is_none_is_refused_with_what_to_do(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        (tmp_path / "state").write_text("nonsense")
        (tmp_path / "memory").touch()
        with pytest.raises(
            Refused, match=r"PUT /snapshot/load \(400\): .*magic\. What to do: make the snapshot anew"
        ):
            await do(monitor(fake).play, RESTORE)


async def test_a_script_ends_where_it_is_refused(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        with pytest.raises(Refused, match="PUT /boot-source"):
            await do(monitor(fake).play, BOOT)
        assert [path for _, path, _ in fake.calls] == ["/machine-config", "/boot-source"]
        assert fake.state == NOT_STARTED


async def test_variables_that_are_too_many_are_refused_before_and_never_shown(tmp_path: Path):
    async with fake_firecracker(tmp_path) as fake:
        with pytest.raises(mmds.MetadataError, match="put large values into the package") as refused:
            await do(monitor(fake).tell, {"KEY": "s3cret" * MMDS_LIMIT})
        assert "s3cret" not in str(refused.value)
        assert fake.calls == []


async def test_nobody_is_not_waited_for_for_ever(tmp_path: Path):
    nowhere = Monitor(str(tmp_path / "api.sock"), str(tmp_path / "v.sock"), patience=0.05)
    with pytest.raises(NoAnswer, match=r"has not started within 0\.05 s"):
        await do(nowhere.play, RESTORE)
    with pytest.raises(NoAnswer, match="nobody listens at port 1024 of the guest"):
        await do(nowhere.connect, AGENT)


async def test_what_is_no_vsock_of_a_guest_is_told_from_one(tmp_path: Path):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\n")
        writer.close()

    async with await asyncio.start_unix_server(greet, str(tmp_path / "v.sock")):
        with pytest.raises(BadAnswer, match="220 mail"):
            await do(Monitor("", str(tmp_path / "v.sock"), 5.0).connect, AGENT)
