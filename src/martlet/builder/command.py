"""Running a tool of a build: its output line by line, a deadline, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from martlet.sandbox import syscalls

LONGEST_LINE = 2000
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
)
"""Variables of ours that a tool sees, besides its own (``UV_…``), by which operators set it up."""


class CommandFailed(Exception):
    """The tool ended with another exit code than 0; ``code`` is negative for a signal."""

    def __init__(self, program: str, code: int) -> None:
        super().__init__(f"{program} failed (exit code {code})")
        self.code = code


def environment(own_prefix: str, more: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a tool: what may pass, what starts with ``own_prefix``, and ``more``."""
    passed = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(own_prefix)}
    return {**passed, **more}


async def run(
    arguments: Iterable[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    memory: int | None = None,
) -> None:
    """Runs a tool in a process group of its own and returns when it has succeeded.

    The group is killed when the caller is cancelled, so a deadline is `asyncio.timeout` around the call. Should this
    process be killed, the kernel kills the tool.

    Args:
        arguments: the program and its arguments.
        folder: where it runs.
        environment: all of its environment.
        on_line: called with each line it prints, on either stream.
        memory: bytes of address space it may have; None: any.

    Raises:
        CommandFailed: it failed.
    """
    program, *rest = arguments
    process = await asyncio.create_subprocess_exec(
        program,
        *rest,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(_begin, memory),
    )
    try:
        assert process.stdout is not None
        await _relay(process.stdout, on_line)
        code = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code != 0:
        raise CommandFailed(Path(program).name, code)


def _begin(memory: int | None) -> None:
    syscalls.prctl(syscalls.Process.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


async def _relay(output: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    rest = b""
    while data := await output.read(65536):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            on_line(_text(line))
    if rest:
        on_line(_text(rest))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")[:LONGEST_LINE]
