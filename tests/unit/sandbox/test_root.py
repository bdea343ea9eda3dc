import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from martlet.sandbox import root, syscalls
from martlet.sandbox.namespaces import separate
from martlet.sandbox.script import Script, text
from martlet.sandbox.seccomp.policy import Policy
from tests.alone import alone

pytestmark = pytest.mark.root

PREFIX = Path(sys.base_prefix)
NUMBERS = Policy.load().numbers
RESOLVERS = "nameserver 192.0.2.53\n"


@pytest.fixture
def inside(tmp_path: Path) -> Callable[..., Any]:
    """Calls a function in a process that has moved into a private root, with one package, ``p``."""
    (tmp_path / "root").mkdir()
    (tmp_path / "packages" / "p").mkdir(parents=True)
    (tmp_path / "packages" / "p" / "handler.py").write_text("code")
    (tmp_path / "packages" / "other").mkdir()

    def call(function: Callable[[], Any]) -> Any:
        def moved() -> Any:
            syscalls.unshare(syscalls.Clone.MOUNT)
            root.build(tmp_path / "root", PREFIX, tmp_path / "packages", RESOLVERS)
            separate()
            root.mount_scratch(1 << 20)
            return function()

        return alone(moved)

    return call


def mount_code(code: str, dependencies: str | None = None) -> None:
    """Mounts packages of these names."""
    script, texts = Script(NUMBERS), [text(100), text(100)]
    texts[0].value = f"{root.PACKAGES}/{code}".encode()
    texts[1].value = f"{root.PACKAGES}/{dependencies}".encode()
    root.mount_code(script, texts[0], None if dependencies is None else texts[1])
    script.run()


def refusal(action: Callable[[], Any]) -> int | None:
    """Returns the error number that the kernel refuses an action with."""
    try:
        action()
    except OSError as error:
        return error.errno
    return None


def test_nothing_of_the_host_is_there_but_what_was_chosen(inside: Callable[..., Any], tmp_path: Path):
    def look() -> list[list[str]]:
        return [sorted(os.listdir("/")), sorted(os.listdir("/etc")), sorted(os.listdir("/dev"))]

    top, etc, dev = inside(look)

    allowed = {
        ".empty",
        ".packages",
        ".proc",
        "bin",
        "dependencies",
        "dev",
        "etc",
        "function",
        "lib",
        "lib32",
        "lib64",
        "libx32",
    }
    assert set(top) <= allowed | {"proc", "sbin", "tmp", "usr", PREFIX.parts[1]}
    assert "shadow" not in etc
    assert dev == ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    assert not inside(lambda: tmp_path.exists() or Path("/var").exists())


def test_the_standard_library_is_at_its_own_path(inside: Callable[..., Any]):
    assert inside(lambda: os.path.exists(os.__file__))


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/passwd", "/function", "/.packages/p", str(PREFIX)])
def test_even_root_cannot_write_outside_of_the_scratch_space(inside: Callable[..., Any], path: str):
    def write() -> int | None:
        if os.path.isdir(path):
            return refusal(lambda: os.mkdir(f"{path}/new"))
        return refusal(lambda: open(path, "a"))

    assert inside(write) == errno.EROFS


def test_devices_work(inside: Callable[..., Any]):
    def use() -> list[int]:
        with open("/dev/zero", "rb") as zero, open("/dev/urandom", "rb") as random:
            read = [len(zero.read(16)), len(random.read(16))]
        with open("/dev/null", "wb") as null:
            return [*read, null.write(b"gone")]

    assert inside(use) == [16, 16, 4]


def test_a_device_that_is_lent_has_a_mode_of_its_own_and_can_be_opened_by_another_user(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "packages").mkdir()
    before = os.stat("/dev/net/tun").st_mode

    def use() -> list[Any]:
        syscalls.unshare(syscalls.Clone.MOUNT)
        devices = {"net/tun": 0o600, "null": 0o666, "full": 0o666}
        root.build(tmp_path / "root", PREFIX, tmp_path / "packages", RESOLVERS, devices=devices)
        os.setuid(65_000)
        with open("/dev/full", "wb", buffering=0) as full:
            refused = refusal(lambda: full.write(b"x"))
        return [refused, refusal(lambda: open("/dev/net/tun")), os.path.exists("/.devices")]

    assert alone(use) == [errno.ENOSPC, errno.EACCES, False]
    assert os.stat("/dev/net/tun").st_mode == before


def test_the_scratch_space_is_full_at_its_size(inside: Callable[..., Any]):
    def fill() -> int | None:
        too_much = b"x" * (1 << 20) + b"x"
        return refusal(lambda: Path("/tmp/f").write_bytes(too_much))

    assert inside(fill) == errno.ENOSPC


def test_shared_memory_is_part_of_the_scratch_space(inside: Callable[..., Any]):
    def share() -> list[str]:
        Path("/dev/shm/segment").touch()
        return os.listdir("/tmp")

    assert inside(share) == ["segment"]


def test_the_scratch_space_runs_out_of_names_too(inside: Callable[..., Any]):
    def litter() -> int | None:
        return refusal(lambda: [Path(f"/tmp/{n}").touch() for n in range(1000)])

    assert inside(litter) == errno.ENOSPC


def test_the_scratch_space_grows_when_it_is_told(inside: Callable[..., Any]):
    def grow() -> int | None:
        root.resize_scratch(4 << 20)
        return refusal(lambda: Path("/tmp/f").write_bytes(b"x" * (3 << 20)))

    assert inside(grow) is None


def test_code_is_mounted_and_all_other_packages_go(inside: Callable[..., Any]):
    def mount() -> list[Any]:
        mount_code("p")
        write = refusal(lambda: Path("/function/new").touch())
        return [os.listdir("/function"), os.listdir("/dependencies"), os.listdir("/.packages"), write]

    assert inside(mount) == [["handler.py"], [], [], errno.EROFS]


def test_code_and_dependencies_come_from_packages_of_their_own(inside: Callable[..., Any]):
    def mount() -> list[Any]:
        mount_code("other", "p")
        write = refusal(lambda: Path("/dependencies/new").touch())
        return [os.listdir("/function"), os.listdir("/dependencies"), write]

    assert inside(mount) == [[], ["handler.py"], errno.EROFS]


def test_the_host_sees_nothing_of_it(inside: Callable[..., Any], tmp_path: Path):
    inside(lambda: None)

    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(tmp_path / "root") == []
