"""The etcd store where etcd asks who is there: passwords and certificates."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from martlet.storage.etcd.store import EtcdStore
from martlet.storage.store import StoreError
from martlet.store_address import EtcdAddress
from tests.conftest import require
from tests.etcd import Cluster
from tests.unit.storage.test_etcd import collected, opened, until_written

pytestmark = pytest.mark.anyio

PASSWORD = "p@ss/word:1"
CERTIFICATE = """
[v3]
subjectAltName = IP:127.0.0.1
extendedKeyUsage = serverAuth, clientAuth
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Cluster, EtcdAddress]]:
    """An etcd with a user who may use one prefix."""
    cluster = Cluster(tmp_path, options=("--bcrypt-cost", "4"))
    try:
        cluster.start()
        for command in (
            ("user", "add", "root:admin"),
            ("user", "add", f"martlet:{PASSWORD}"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "martlet"),
            ("role", "grant-permission", "martlet", "readwrite", "--prefix=true", "/martlet/"),
            ("user", "grant-role", "martlet", "martlet"),
            ("auth", "enable"),
        ):
            cluster.ctl(*command)
        yield cluster, EtcdAddress(cluster.endpoints, user="martlet", password=PASSWORD)
    finally:
        cluster.kill()


async def test_a_user_does_everything_with_a_password(guarded: tuple[Cluster, EtcdAddress]) -> None:
    async with opened(guarded[1]) as store:
        changes = store.watch("/", await store.revision())
        lease = await store.lease(60)
        await store.put("/a", b"1", lease=lease)
        await lease.keep_alive()
        assert [entry.key for entry in (await store.list("/"))[0]] == ["/a"]
        await lease.revoke()
        assert [change.value for change in await collected(changes, 2)] == [b"1", None]
        await changes.aclose()


async def test_a_password_may_come_from_a_file(guarded: tuple[Cluster, EtcdAddress], tmp_path: Path) -> None:
    file = tmp_path / "password"
    address = replace(guarded[1], password=None, password_file=file)
    with pytest.raises(StoreError, match=f"cannot read the password file {file}"):
        await EtcdStore.open(address)
    file.write_text(f"{PASSWORD}\n")
    async with opened(address) as store:
        await store.put("/a", b"")


async def test_wrong_passwords_and_users_without_one_are_refused(
    guarded: tuple[Cluster, EtcdAddress],
) -> None:
    for address in (replace(guarded[1], password="wrong-one"), EtcdAddress(guarded[1].endpoints)):
        with pytest.raises(StoreError) as caught:
            await EtcdStore.open(address)
        assert "wrong-one" not in str(caught.value)
        assert "user" in str(caught.value)


async def test_what_a_user_may_not_is_refused_at_once(guarded: tuple[Cluster, EtcdAddress]) -> None:
    with pytest.raises(StoreError, match="permission denied"):
        await EtcdStore.open(replace(guarded[1], prefix="/others"))


async def test_a_token_that_is_no_longer_taken_is_renewed(guarded: tuple[Cluster, EtcdAddress]) -> None:
    cluster, address = guarded
    async with opened(address) as store:
        changes = store.watch("/", await store.revision())
        await store.put("/a", b"1")
        await collected(changes, 1)
        # Users that change make every token old.
        cluster.ctl("--user", "root:admin", "user", "add", "other:other")
        await store.put("/a", b"2")
        assert [change.value for change in await collected(changes, 1)] == [b"2"]
        # A member that is started anew knows no token: neither in the calls nor in the watch.
        cluster.members[0].kill()
        cluster.members[0].start(cluster.names)
        await until_written(store, "/a", b"3")
        assert [change.value for change in await collected(changes, 1)] == [b"3"]
        await changes.aclose()


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def signed(folder: Path, name: str, ca: Path) -> tuple[Path, Path]:
    """Makes a certificate and its key."""
    key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
    (folder / "v3").write_text(CERTIFICATE)
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}"),
    )
    openssl(
        *("x509", "-req", "-in", str(request), "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial"),
        *("-days", "2", "-out", str(certificate), "-extfile", str(folder / "v3"), "-extensions", "v3"),
    )
    return certificate, key


def authority(folder: Path, name: str) -> Path:
    """Makes a certificate authority; returns the path of its files without their ending."""
    path = folder / name
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-keyout", f"{path}.key", "-out", f"{path}.crt", "-subj", f"/CN={name}"),
    )
    return path


async def test_certificates_are_shown_and_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(subprocess.run(["which", "openssl"], capture_output=True).returncode == 0, "openssl")
    ca, stranger = authority(tmp_path, "ca"), authority(tmp_path, "stranger")
    member = signed(tmp_path, "member", ca)
    ours = signed(tmp_path, "martlet", ca)
    cluster = Cluster(
        tmp_path,
        options=(
            *("--cert-file", str(member[0]), "--key-file", str(member[1])),
            *("--client-cert-auth", "--trusted-ca-file", f"{ca}.crt"),
        ),
        tls=("--cacert", f"{ca}.crt", "--cert", str(ours[0]), "--key", str(ours[1])),
    )
    address = EtcdAddress(cluster.endpoints, ca=f"{ca}.crt", cert=ours[0], key=ours[1])
    try:
        cluster.start()
        async with opened(address) as store:
            changes = store.watch("/", await store.revision())
            await store.put("/a", b"1")
            assert [change.value for change in await collected(changes, 1)] == [b"1"]
            await changes.aclose()
        monkeypatch.setattr("martlet.storage.etcd.client.CALL_SECONDS", 3)
        for refused, why in (
            (replace(address, ca=f"{stranger}.crt"), "certificate verify failed"),
            (replace(address, cert=None, key=None), "out of reach"),
            (replace(address, ca=f"{ca}.nowhere"), r"cannot use the certificates .*ca\.nowhere"),
        ):
            with pytest.raises(StoreError, match=why):
                await EtcdStore.open(refused)
    finally:
        cluster.kill()
