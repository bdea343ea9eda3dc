"""Builds that reach for more than theirs: each is held, says so, leaves nothing, and no neighbour waits.

The code of a build is a Python program here, ``steps``, run by a runtime of the operator's.
"""

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from martlet.builder.output import LONGEST_LINE, MOST_LINES
from martlet.drivers.remains import group_name
from martlet.sandbox.hierarchies import usable_group
from tests.example_runtime import write_runtime
from tests.security.conftest import NEIGHBOUR, bounded_memory, undisturbed
from tests.system.conftest import Platform, until

MARK = f"700.0000{os.getpid()}"
"""Seconds, as nobody else writes them: what builds have started is found by it."""
LINGER = f"""
import os, signal, subprocess, sys, time
for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execv("/bin/sleep", ["sleep", "{MARK}"])
        os._exit(0)
print("lingers", flush=True)
"""
BUILD_TIMEOUT = 15
"""Seconds; what reads much on a busy machine takes some of them."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def platform(
    make_platform: Callable[..., Platform], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform whose builds have small limits, with secrets of its own, of a function and of a build under way."""
    runtimes = tmp_path_factory.mktemp("runtimes")
    write_runtime(runtimes / "template")
    with (runtimes / "template/runtime.toml").open("a") as description:
        description.write('\n[build]\ncommand = ["{interpreter}", "-S", "/source/steps"]\n')
    platform = make_platform(
        runtimes_path=str(runtimes),
        build_timeout=BUILD_TIMEOUT,
        build_memory="256Mi",
        build_disk="64Mi",
        build_cache="128Mi",
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SECRET", "nobody-else-knows-platform")
        platform.start()
    secret = {"SECRET": "nobody-else-knows-environment"}
    platform.deploy("neighbour", NEIGHBOUR, min_instances=1, environment=secret)
    yield platform
    platform.stop()


def archive(code: str) -> bytes:
    """Returns the code of a function with that build."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, text in (("steps", code), ("page.template", "built")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            packed.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def deploy(platform: Platform, name: str, code: str, *, wait: bool = True) -> httpx2.Response:
    """Deploys a function with that build."""
    target = "/functions" if wait else "/functions?wait=false"
    files = {"archive": ("code.tar.gz", archive(code))}
    return platform.client.post(target, data={"name": name}, files=files)


def failure(platform: Platform, name: str, code: str) -> tuple[str, list[str]]:
    """Deploys what must fail; returns why it did, and its log."""
    answer = deploy(platform, name, code)
    assert answer.status_code == 422, answer.text
    assert platform.client.get(f"/functions/{name}").status_code == 404
    return answer.json()["detail"], answer.json()["log"]


def log_of(platform: Platform, function: str) -> list[str]:
    """Returns what the last build of a function has said."""
    build = platform.client.get("/builds", params={"function": function}).json()[0]
    lines = platform.client.get(f"/builds/{build['id']}/logs").text.splitlines()
    return [line for line in lines if line.startswith("data:")]


def processes() -> list[int]:
    """Returns what builds of this module have started and is still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[:2] == [b"sleep", MARK.encode()]:
                found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def nothing_left(platform: Platform) -> Iterator[None]:
    """After each test no process, cgroup or folder of a build is there."""
    yield
    run = platform.settings.run_directory
    top = usable_group()
    groups = [] if top is None else [n for n in top.names() if n.startswith(group_name(run, "builds"))]
    assert (processes(), groups) == ([], [])
    assert list((platform.data / "builds").glob("*/work")) == []
    assert list((run / "builds").iterdir()) == []


def test_it_finds_no_secret_of_the_platform_a_function_or_another_build(platform: Platform) -> None:
    secret = 'SECRET = "nobody-else-" + "knows-build"\nopen("/cache/found", "w").write(SECRET)\n'
    keep = f'{secret}open("/source/nobody-else-knows", "w").write(SECRET)\nprint(SECRET, flush=True)\n'
    other = deploy(platform, "secretive", f"{keep}import time; time.sleep(600)", wait=False)
    assert other.status_code == 202, other.text
    until(lambda: any("knows-build" in line for line in events(platform, other)), why="no other build")
    search = """
import os, sys
word, seen = "nobody-else-" + "knows", 0
without = ("/usr", sys.base_prefix, "/sys", "/source", "/proc/sys")
for top, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(top, name) not in without]
    for name in files:
        path = os.path.join(top, name)
        if word in name: print("found", path)
        if path.endswith(("kmsg", "clear_refs")) or "/task/" in path or not os.access(path, os.R_OK): continue
        try:
            with open(path, "rb", buffering=0) as file: content = file.read(1 << 20) or b""
        except OSError: continue
        seen += 1
        if word.encode() in content: print("found", path)
print("looked at", seen > 50, os.path.exists(DATA), os.listdir("/cache"))
""".replace("DATA", repr(str(platform.data)))
    try:
        answer = deploy(platform, "searching", search)
        assert answer.status_code == 201, answer.text
        text = "\n".join(log_of(platform, "searching"))
        assert "looked at True False []" in text, text
        assert "found" not in text
    finally:
        cancel(platform, other)


def test_without_a_network_it_reaches_neither_the_platform_nor_another_machine(platform: Platform) -> None:
    reach = f"""
import socket
for address in (("127.0.0.1", {platform.port}), ("192.0.2.1", 80), ("169.254.169.254", 80)):
    try: socket.create_connection(address, 5); print("reached", address)
    except OSError as error: print("refused", type(error).__name__)
"""
    assert deploy(platform, "reaching", reach).status_code == 201
    text = "\n".join(log_of(platform, "reaching"))
    assert (text.count("refused"), text.count("reached")) == (3, 0), text


@pytest.mark.parametrize(
    ("attempt", "setting"),
    [
        (
            "n = 0\nwhile True:\n    n += 1\n    open(f'/output/{n}', 'wb').write(bytes(1 << 20))",
            "build_disk",
        ),
        ("held = []\nwhile True: held.append(bytearray(1 << 24))", "build_memory"),
        ("n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))", None),
        ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", None),
        (f"{LINGER}while True: time.sleep(1)", "build_timeout"),
    ],
    ids=["files", "memory", "scratch", "processes", "time"],
)
def test_it_is_ended_at_its_limits(
    request: pytest.FixtureRequest, platform: Platform, attempt: str, setting: str | None
) -> None:
    with undisturbed(platform), bounded_memory(platform):
        reason, _ = failure(platform, f"taking-{request.node.callspec.id}", attempt)
    assert setting is None or f"system.{setting}" in reason, reason
    assert deploy(platform, "honest", "print('works')").status_code == 201
    assert platform.client.delete("/functions/honest").is_success


def test_what_it_leaves_behind_ends_with_it(platform: Platform) -> None:
    assert deploy(platform, "leaving", LINGER).status_code == 201
    assert platform.client.get("/invoke/leaving").text == "built"


def test_one_that_will_not_end_is_cancelled(platform: Platform) -> None:
    begun = deploy(platform, "lingering", f"{LINGER}while True: time.sleep(1)", wait=False)
    until(lambda: len(processes()) == 3, why="the build did not start")
    cancel(platform, begun)
    assert processes() == []


def test_a_log_without_end_is_cut_and_orders_no_terminal_about(platform: Platform) -> None:
    flood = r"print('\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\x9b2J \x1b]52;c;cm0=\x1b\\ \x08\x00end', flush=True)"
    with undisturbed(platform), bounded_memory(platform):
        code = f"{flood}\nprint('x' * 10_000_000)\nfor n in range(1_000_000): print('line', n)"
        answer = deploy(platform, "flooding", code)
    assert answer.status_code == 201, answer.text
    lines = log_of(platform, "flooding")
    assert any("red  end" in line for line in lines), lines[:5]
    assert not any(code in "\n".join(lines) for code in ("\\u001b", "\x1b", "\x9b", "\\u009b", "owned"))
    assert len(lines) < MOST_LINES + 100
    assert max(map(len, lines)) < LONGEST_LINE + 200


@pytest.mark.parametrize(
    "link", ["os.symlink('/etc/passwd', '/output/passwd')", "os.symlink('../../..', '/output/up')"]
)
def test_links_that_lead_out_of_its_output_are_refused(platform: Platform, link: str) -> None:
    reason, _ = failure(platform, "linking", f"import os\n{link}")
    assert "cannot be packed" in reason


def test_a_folder_that_it_swaps_for_a_link_shows_nothing_of_the_machine(platform: Platform) -> None:
    (platform.data.parent / "bait").mkdir(exist_ok=True)
    (platform.data.parent / "bait/page.template").write_text("nobody-else-knows")
    swap = (
        "import os, shutil\nos.mkdir('/output/a')\nopen('/output/page.template', 'w').write('mine')\n"
        f"shutil.rmtree('/output/a')\nos.symlink({str(platform.data.parent / 'bait')!r}, '/output/a')\n"
    )
    try:
        reason, _ = failure(platform, "swapping", swap)
        assert "absolute path" in reason
    finally:
        shutil.rmtree(platform.data.parent / "bait")


def events(platform: Platform, begun: httpx2.Response) -> list[str]:
    """Returns what a build under way has said so far."""
    location = begun.headers["location"]
    lines: list[str] = []
    with platform.client.stream("GET", f"{location}/logs") as stream:
        deadline = time.monotonic() + 10
        for line in stream.iter_lines():
            lines.append(line)
            if "nobody-else" in line or time.monotonic() > deadline:
                break
    return lines


def cancel(platform: Platform, begun: httpx2.Response) -> None:
    """Cancels a build under way."""
    answer = platform.client.delete(begun.headers["location"])
    assert answer.json()["state"] == "cancelled", answer.text
