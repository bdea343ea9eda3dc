"""What builds reach with ``build_network: egress``, on a machine whose network is made of namespaces of a test."""

import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from tests.example_runtime import write_runtime
from tests.system.conftest import Platform, until
from tests.system.test_network_policy import LAN, LAN_HOST, METADATA, REMOTE, WAN, World, world

__all__ = ["world"]

pytestmark = [pytest.mark.root, pytest.mark.slow]

STEPS = """
import socket
for address, port in {targets}:
    try:
        with socket.create_connection((address, port), 10) as client: said = "reached as " + client.recv(100).decode()
    except OSError as error: said = "refused"
    print(address, port, said, flush=True)
try: print("name", socket.getaddrinfo("packages.example", 80, socket.AF_INET)[0][4][0])
except OSError: print("name unknown")
"""


@pytest.fixture(scope="module")
def platform(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on that machine, with a runtime of its own whose builds run what they are sent."""
    folder = tmp_path_factory.mktemp("egress")
    write_runtime(folder / "runtimes/template")
    with (folder / "runtimes/template/runtime.toml").open("a") as description:
        description.write('\n[build]\ncommand = ["{interpreter}", "-S", "/source/steps"]\nnetwork = true\n')
    (folder / "resolv.conf").write_text(f"nameserver {METADATA}\n")
    small = {"lanes": 1, "disable_container": True, "disable_microvm": True}
    runtimes = str(folder / "runtimes")
    platform = Platform(folder / "data", build_network="egress", runtimes_path=runtimes, **small)
    mount = f'mount --bind {folder}/resolv.conf /etc/resolv.conf && exec "$@"'
    platform.wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    platform.start()
    yield platform
    platform.close()


def test_a_build_reaches_other_machines_and_neither_this_one_nor_its_services(
    world: World,
    platform: Platform,
) -> None:
    reached = {(REMOTE, 443): WAN, (LAN_HOST, 80): LAN}
    refused = [
        ("127.0.0.1", platform.port),
        (WAN, 7000),
        (LAN, 7000),
        (METADATA, 80),
        ("100.100.100.200", 80),
        ("198.18.0.1", 7000),
    ]
    log = build(platform, STEPS.format(targets=[*reached, *refused]))
    for (address, port), source in reached.items():
        assert f"{address} {port} reached as {source}" in log
    for address, port in refused:
        assert f"{address} {port} refused" in log
    assert f"name {REMOTE}" in log


def test_nothing_of_it_is_left_when_the_platform_has_stopped(world: World, platform: Platform) -> None:
    build(platform, STEPS.format(targets=[]))
    until(lambda: not world.machine.links("m"), why="links end with the builds")
    assert platform.stop() == 0
    assert "martlet" not in world.machine.run("nft", "list", "tables")


def build(platform: Platform, steps: str) -> list[str]:
    """Deploys a function with these steps; returns what its build has said."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, text in (("steps", steps), ("page.template", "built")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            packed.addfile(entry, io.BytesIO(text.encode()))
    name = f"built-{len(platform.client.get('/functions').json())}"
    files = {"archive": ("code.tar.gz", buffer.getvalue())}
    answer = platform.client.post("/functions?wait=false", data={"name": name}, files=files)
    assert answer.status_code == 202, answer.text
    with platform.client.stream("GET", f"{answer.headers['location']}/logs") as stream:
        data = [line.removeprefix("data:") for line in stream.iter_lines() if line.startswith("data:")]
    return [json.loads(each)["message"] for each in data]
