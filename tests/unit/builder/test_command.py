"""Tools of builds: their lines come as they are printed, and nothing of them outlives the build."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from martlet.builder.command import LONGEST_LINE, CommandFailed, environment, run

pytestmark = pytest.mark.anyio


async def test_lines_of_both_streams_are_relayed(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.stdout.write('no end')"
    await run([sys.executable, "-c", code], folder=tmp_path, environment={}, on_line=lines.append)
    assert lines == ["out", "err", "no end"]


async def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; sys.stdout.buffer.write(b'\\xff' * 1_000_000)"
    await run([sys.executable, "-c", code], folder=tmp_path, environment={}, on_line=lines.append)
    assert max(map(len, lines)) == LONGEST_LINE


async def test_a_failure_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        await run([sys.executable, "-c", "exit(3)"], folder=tmp_path, environment={}, on_line=print)
    assert caught.value.code == 3


async def test_a_tool_gets_no_more_memory_than_it_may_have(tmp_path: Path) -> None:
    lines: list[str] = []
    command = [sys.executable, "-c", "bytearray(2**28)"]
    await run(command, folder=tmp_path, environment={}, on_line=lines.append, memory=2**30)
    with pytest.raises(CommandFailed):
        await run(command, folder=tmp_path, environment={}, on_line=lines.append, memory=2**28)
    assert lines[-1] == "MemoryError"


async def test_a_deadline_kills_the_tool_and_what_it_has_started(tmp_path: Path) -> None:
    pids: list[str] = []
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await run([sys.executable, "-c", code], folder=tmp_path, environment={}, on_line=pids.append)
    deadline = time.monotonic() + 10
    for pid in pids[0].split():
        while _is_alive(pid):
            assert time.monotonic() < deadline, f"{pid} lives on"
            await asyncio.sleep(0.01)


async def test_a_tool_sees_its_own_variables_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", "/links")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    seen = environment("UV_", {"NO_COLOR": "1"})
    assert seen["UV_FIND_LINKS"] == "/links"
    assert seen["NO_COLOR"] == "1"
    assert seen["PATH"] == os.environ["PATH"]
    assert "DATABASE_PASSWORD" not in seen


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
