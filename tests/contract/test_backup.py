"""Backups by the very commands of the guide: what was in the store is there again after they were restored."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from martlet.storage.blobs import Blobs
from martlet.storage.etcd.store import EtcdStore
from martlet.storage.opening import DATABASE, QUEUES
from martlet.storage.sqlite import SqliteStore
from martlet.storage.sqlite_broker import SqliteBroker
from martlet.store_address import EtcdAddress
from tests.conftest import require
from tests.etcd import Cluster

GUIDE = Path(__file__).parents[2] / "docs/operations.md"
DIGEST = "0" * 64

pytestmark = pytest.mark.anyio


def run(part: str, paths: Mapping[str, object]) -> None:
    """Runs the commands of a part of the guide, in other places than those it names."""
    (text,) = re.findall(rf"<!-- tested: {part} -->\n```console\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    assert lines
    for line in lines:
        for here, there in paths.items():
            line = line.replace(here, str(there))
        require(shutil.which(shlex.split(line)[0]), f"the program {shlex.split(line)[0]}")
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        subprocess.run(["sh", "-ec", line], env=environment, check=True, capture_output=True, timeout=60)


async def test_a_data_folder_comes_back_as_it_was_at_the_backup(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    data.mkdir()
    backup.mkdir()
    paths = {"/var/lib/martlet": data, "/backup": backup}
    store, broker = await SqliteStore.open(data / DATABASE), await SqliteBroker.open(data / QUEUES, 3)
    await Blobs.local(data / "blobs").put("packages", DIGEST, b"code")
    await store.put("/functions/kept", b"kept")
    await broker.queue("kept").put(b"waits")
    run("backup", paths)  # while it is open
    await store.put("/functions/kept", b"changed")
    await broker.queue("kept").put(b"came later")
    shutil.rmtree(data / "blobs")
    assert Path(f"{data / DATABASE}-wal").stat().st_size, "there is no log that could spoil what is restored"
    # As after a kill: nobody has closed anything, and the logs of the databases are left.
    left = {file.name: file.read_bytes() for file in data.iterdir()}
    await store.close()
    await broker.close()
    for name, content in left.items():
        (data / name).write_bytes(content)
    run("restore", paths)
    store, broker = await SqliteStore.open(data / DATABASE), await SqliteBroker.open(data / QUEUES, 3)
    entry = await store.get("/functions/kept")
    assert entry is not None
    assert entry.value == b"kept"
    assert [each.message for each in await broker.queue("kept").take(5, 10)] == [b"waits"]
    assert await Blobs.local(data / "blobs").get("packages", DIGEST) == b"code"
    await store.close()
    await broker.close()


async def test_an_etcd_comes_back_as_it_was_at_the_snapshot(tmp_path: Path) -> None:
    etcd = Cluster(tmp_path)
    (member,) = etcd.members
    try:
        etcd.start()
        address = EtcdAddress.parse(f"etcd://{member.endpoint}/martlet")
        store = await EtcdStore.open(address)
        await store.put("/functions/kept", b"kept")
        paths = {
            "http://10.0.0.1:2379": f"http://{member.endpoint}",
            "http://10.0.0.1:2380": member.peer,
            "/backup": tmp_path,
            "/var/lib/etcd-restored": tmp_path / "restored",
            "--name one": f"--name {member.name}",
            "one=http": f"{member.name}=http",
        }
        run("snapshot", paths)
        await store.put("/functions/kept", b"changed")
        await store.close()
        member.kill()
        run("snapshot restore", paths)
        shutil.rmtree(tmp_path / member.name)
        (tmp_path / "restored").rename(tmp_path / member.name)
        etcd.start()
        store = await EtcdStore.open(address)
        entry = await store.get("/functions/kept")
        assert entry is not None
        assert entry.value == b"kept"
        await store.close()
    finally:
        etcd.kill()
