"""Build commands in their sandbox: what they are given, what they may not have, and that nothing of them is left."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from martlet.builder.output import LONGEST_LINE, MOST_LINES
from martlet.builder.workshop import CACHE, OUTPUT, SOURCE, CommandFailed, Job, Workshop
from martlet.drivers.driver import DriverError
from martlet.drivers.remains import group_name, sweep
from martlet.model import MiB, Network
from martlet.package.staging import remove_tree
from martlet.sandbox.hierarchies import usable_group
from tests.driver_rigs import WORKSHOP_LANE

pytestmark = [pytest.mark.anyio, pytest.mark.root]

SHELL = ("/bin/sh", "-c")
PYTHON = (str(Path(getattr(sys, "_base_executable", sys.executable))), "-S", "-c")


class Bench:
    """A workshop with the folders of one function, and what the last command has printed."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folders = {path: folder / path.strip("/") for path in (SOURCE, OUTPUT, CACHE)}
        for each in self.folders.values():
            each.mkdir(parents=True)
        settings = {"memory": 256 * MiB, "disk": 32 * MiB, "environment": {}, "shown": [], **limits}
        self.workshop = Workshop(folder / "run", WORKSHOP_LANE, network=Network.HOST, egress=None, **settings)
        self.lines: list[str] = []

    async def run(self, *command: str, **more: Any) -> list[str]:
        """Runs a command (a line of shell by default) and returns what it prints."""
        words = command if len(command) > 1 else (*SHELL, *command)
        self.lines = []
        await self.workshop.run(Job("build", words, self.folders, **more), self.lines.append)
        return self.lines


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async for bench in opened(Bench(tmp_path)):
        yield bench


async def opened(bench: Bench) -> AsyncIterator[Bench]:
    await bench.workshop.open()
    yield bench
    await bench.workshop.close()
    assert marked() == [], "processes of a build live on"


MARK = f"600.0000{os.getpid()}"
"""Seconds, as nobody else writes them: what tests have builds start is found by it."""


def marked() -> list[int]:
    """Returns the processes with `MARK` in their command line, which others than their user may read too."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0] in (b"sleep", PYTHON[0].encode()) and any(
            MARK.encode() in each for each in arguments[1:4]
        ):
            found.append(int(name))
    return found


async def eventually(condition: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.01)


async def test_it_starts_in_the_source_and_may_write_to_its_folders(bench: Bench) -> None:
    (bench.folders[SOURCE] / "main.c").write_text("int main;\n")
    said = await bench.run(
        "pwd; cat main.c; echo done > /output/function; echo kept > /cache/objects; rm main.c"
    )
    assert said == ["/source", "int main;"]
    assert (bench.folders[OUTPUT] / "function").read_text() == "done\n"
    assert (bench.folders[CACHE] / "objects").read_text() == "kept\n"
    assert list(bench.folders[SOURCE].iterdir()) == []
    owners = {each.stat().st_uid for folder in bench.folders.values() for each in (folder, *folder.iterdir())}
    assert owners == {os.geteuid()}, "what a build has made belongs to the platform afterwards"


async def test_it_sees_what_it_is_shown_and_cannot_change_it(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "toolchain").mkdir()
    (tmp_path / "toolchain/cc").write_text("compiler\n")
    shown = {"shown": [tmp_path / "toolchain"], "named": {"/.runtime": tmp_path / "toolchain"}}
    assert await bench.run(f"cat {tmp_path}/toolchain/cc /.runtime/cc", **shown) == ["compiler"] * 2
    for place in (f"{tmp_path}/toolchain", "/.runtime", "/usr", "/etc", "/"):
        with pytest.raises(CommandFailed):
            await bench.run(f"touch {place}/mine", **shown)


async def test_it_has_a_user_of_its_own_without_any_power(bench: Bench) -> None:
    said = await bench.run(
        "id -u; whoami; hostname; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    assert int(said[0]) >= 2_000_000_000
    assert said[1:3] == ["build", "build"]
    assert [line.split(":\t")[1].lstrip("0") for line in said[3:]] == ["", "", "1", "2"]


async def test_it_sees_no_file_and_no_process_of_the_host(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the platform")
    assert await bench.run(
        f"ls {tmp_path} /srv /var /home /root/.ssh 2>/dev/null; set -- /proc/[0-9]*; echo $#"
    ) == ["2"]  # the first and the shell
    await bench.run("kill -9 1; true")
    with pytest.raises(CommandFailed):
        await bench.run(f"kill -0 {os.getpid()}")


async def test_without_a_network_it_reaches_not_even_this_machine(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attempt = f"import socket; socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 5)"
        with pytest.raises(CommandFailed):
            await bench.run(*PYTHON, attempt)
        assert "refused" in bench.lines[-1]
        await bench.run(*PYTHON, attempt, network=True)


async def test_what_it_says_to_the_user_is_told_with_its_exit_code(bench: Bench) -> None:
    with pytest.raises(CommandFailed) as caught:
        await bench.run("""echo '{"field": "code", "message": "no go.mod"}' >&4; exit 3""")
    assert (caught.value.code, caught.value.answer) == (3, {"field": "code", "message": "no go.mod"})
    for nonsense in ("[1]", "nonsense", '{"field": 1}', "{" * 100_000):
        with pytest.raises(CommandFailed) as caught:
            await bench.run(
                *PYTHON, f"import os; os.set_blocking(4, False); os.write(4, b'{nonsense}'); exit(1)"
            )
        assert caught.value.answer == {}


async def test_a_program_that_is_not_there_is_no_fault_of_the_build(bench: Bench) -> None:
    with pytest.raises(DriverError, match="No such file"):
        await bench.run("/no/such/program", "argument")


async def test_what_it_leaves_running_ends_with_it(bench: Bench) -> None:
    await bench.run(f"sleep {MARK} & (setsid sleep {MARK} > /dev/null 2>&1 &); echo started")
    assert marked() == []


async def test_what_is_cancelled_is_gone_with_all_it_has_started(bench: Bench) -> None:
    running = asyncio.create_task(bench.run(f"setsid sleep {MARK} & sleep {MARK}"))
    await eventually(lambda: len(marked()) >= 2, "the build did not start")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert marked() == []


async def test_it_ends_with_a_platform_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom tests.unit.builder.test_workshop import Bench\n"
        "async def main():\n    bench = Bench(Path(sys.argv[1]))\n    await bench.workshop.open()\n"
        f"    await bench.run('sleep {MARK}; true')\nasyncio.run(main())\n"
    )
    control = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    try:
        await eventually(lambda: len(marked()) >= 1, "the build did not start")
    finally:
        control.send_signal(signal.SIGKILL)
        control.wait()
    await eventually(lambda: marked() == [], "the build outlives its platform")
    await eventually(lambda: not groups_of(tmp_path / "run"), "its cgroup is left")
    heir = Bench(tmp_path / "again")
    async for _ in opened(heir):
        assert await heir.run("echo works") == ["works"]
        assert not groups_of(tmp_path / "again/run"), "a build that has ended leaves nothing"


async def test_the_cgroup_of_a_build_that_is_killed_with_its_platform_is_removed_by_the_next(
    tmp_path: Path,
) -> None:
    top = usable_group()
    for job in () if top is None else ("one", "two"):  # without root there may be no cgroup to leave
        assert top is not None
        top.below(f"{group_name(tmp_path / 'run', 'builds')}-{job}").create()
    await sweep(tmp_path / "run")
    assert not groups_of(tmp_path / "run")


def groups_of(run: Path) -> list[str]:
    """The cgroups of builds of the platform with a run directory."""
    top = usable_group()
    return [] if top is None else [name for name in top.names() if name.startswith(group_name(run, "builds"))]


async def test_it_may_not_fill_the_disk(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="32Mi") as caught:
        await bench.run("while true; do head -c 8000000 /dev/zero > /cache/$(date +%N); done")
    assert caught.value.limit == "system.build_disk"
    with pytest.raises(CommandFailed):
        await bench.run("cp /dev/zero /output/one")
    assert (bench.folders[OUTPUT] / "one").stat().st_size <= 32 * MiB


async def test_what_fills_the_disk_before_anybody_looks_is_refused_too(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="32Mi") as caught:
        await bench.run("for n in 1 2 3 4 5; do head -c 8000000 /dev/zero > /cache/$n; done")
    assert caught.value.limit == "system.build_disk"


async def test_it_may_not_fill_the_memory(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="256Mi") as caught:
        await bench.run(*PYTHON, "bytearray(1 << 30)")
    assert caught.value.limit == "system.build_memory"


async def test_a_bomb_of_processes_goes_out(bench: Bench) -> None:
    bomb = "import os\ntry:\n    while True: os.fork()\nexcept OSError: pass\n"
    with pytest.raises(CommandFailed):
        await bench.run(*PYTHON, bomb + f"import time; time.sleep(1); raise SystemExit(1)  # {MARK}")
    assert marked() == []


async def test_endless_output_is_cut(bench: Bench) -> None:
    await bench.run("yes | head -n 100000")
    assert len(bench.lines) == MOST_LINES + 1
    await bench.run(*PYTHON, "print('x' * 1_000_000)")
    assert max(map(len, bench.lines)) == LONGEST_LINE


async def test_folders_deeper_than_anything_can_be_removed(bench: Bench) -> None:
    dig = "import os\nos.chdir('/output')\nfor _ in range(3000):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    await bench.run(*PYTHON, dig)
    remove_tree(bench.folders[OUTPUT])
    assert not bench.folders[OUTPUT].exists()


async def test_links_and_modes_cannot_make_the_platform_touch_what_is_its_own(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir(mode=0o750)
    (tmp_path / "mine/file").write_text("mine")
    (tmp_path / "mine/file").chmod(0o640)
    await bench.run(
        f"ln -s {tmp_path}/mine /output/folder; ln -s {tmp_path}/mine/file /output/file; mkfifo /output/fifo;"
        "mkdir /output/closed; echo x > /output/closed/file; chmod 0 /output/closed/file /output/closed"
    )
    assert [(tmp_path / path).stat().st_mode & 0o777 for path in ("mine", "mine/file")] == [0o750, 0o640]
    assert (bench.folders[OUTPUT] / "closed/file").read_text() == "x\n"


async def test_it_sees_the_certificates_that_the_platform_is_told_to_trust(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "company.pem").write_text("trusted")
    (tmp_path / "company.key").write_text("secret")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tmp_path / "company.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "there is none"))
    assert await bench.run("cat $NODE_EXTRA_CA_CERTS") == ["trusted"]
    with pytest.raises(CommandFailed):
        await bench.run(f"cat {tmp_path}/company.key")
