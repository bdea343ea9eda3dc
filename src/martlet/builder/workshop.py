"""Runs the commands of builds in sandboxes: their output line by line, and nothing left of them afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path

import martlet
from martlet.builder.output import relay
from martlet.drivers.cell import empty
from martlet.drivers.driver import DriverError
from martlet.drivers.egress import Egress
from martlet.drivers.host import Host, inspect
from martlet.drivers.identities import Identities
from martlet.drivers.remains import group_name
from martlet.drivers.resolvers import Resolvers
from martlet.model import Network
from martlet.runtimes import INTERPRETER
from martlet.sandbox import root
from martlet.sandbox.cgroups import Group, Limits
from martlet.sandbox.hierarchies import usable_group
from martlet.sandbox.means import Users
from martlet.sandbox.workshop import HOME, OVER_DISK, Ends, Plan
from martlet.terminal import plain
from martlet.units import format_bytes

SOURCE, OUTPUT, CACHE, PREPARED = "/source", "/output", "/cache", "/prepared"
"""Where a command finds what it is given."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES = re.compile(r"[A-Z]+(_[A-Z]+)*_(CERT|CERT_FILE|CAINFO|CA_[A-Z]+)")
"""Variables of the platform that name a file of trusted certificates, each tool its own; where everybody may read the
file, commands see variable and file."""
PASSED_ON = (
    *("SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""Variables of the platform that commands see as well."""
_PROCESSES, _OPEN_FILES = 1024, 4096
_LONGEST_ANSWER = 4096
_BOOTSTRAP = """
import sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import workshop
workshop.main(sys.argv[2], sys.argv[3])
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A command and what it is given.

    Attributes:
        id: tells it from the others that run.
        command: the program, by its path inside (see `Workshop.inside`), and its arguments.
        folders: what it may write to, by path inside; it starts in the first.
        named: what else it sees, likewise.
        shown: files and folders that it sees at their own path.
        environment: variables besides the usual ones.
        network: whether it may have one.
        held: descriptors that are held as long as it runs, even when this process is killed.
    """

    id: str
    command: Sequence[str]
    folders: Mapping[str, Path]
    named: Mapping[str, Path] = field(default_factory=dict)
    shown: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    held: Sequence[int] = ()


class CommandFailed(Exception):
    """A command did not end well.

    Attributes:
        code: its exit code; 128 and the number of the signal that ended it.
        answer: what it has to say to the user, or nothing.
        limit: the setting that it went over, or None; then the message says so.
    """

    def __init__(self, message: str, code: int, answer: dict[str, str], limit: str | None = None) -> None:
        super().__init__(message)
        self.code, self.answer, self.limit = code, answer, limit


class Workshop:
    """See the module. `open` it first.

    Args:
        run: the platform's run directory.
        lane: a number that no lane has; decides the user ids.
        network: what commands get that may have a network.
        egress: makes namespaces with a way out, where that is it.
        memory: bytes a command may take, with all it starts and what lies in ``/tmp``.
        disk: bytes its folders may hold.
        environment: variables that the operator gives to every command.
        shown: files and folders that the operator shows to every command.
    """

    def __init__(
        self,
        run: Path,
        lane: int,
        *,
        network: Network,
        egress: Egress | None,
        memory: int,
        disk: int,
        environment: Mapping[str, str],
        shown: Sequence[Path],
    ) -> None:
        self._run = run / "builds"
        self._group_names = f"{group_name(run, 'builds')}-"
        self._lane = lane
        self._network = network
        self._egress = egress
        self._memory, self._disk = memory, disk
        self._environment, self._shown = environment, shown
        self._host: Host | None = None
        self._preparing = asyncio.Lock()
        self._top: Group | None = None
        self._identities = Identities(lane)

    async def open(self) -> None:
        """Ends what an earlier life has left."""
        self._top = await asyncio.to_thread(usable_group)
        await self._empty_groups()
        if self._egress is not None:
            await self._egress.open()
        self._run.mkdir(parents=True, exist_ok=True)

    async def prepare(self) -> None:
        """Finds out, once, what the host gives for sandboxes."""
        async with self._preparing:
            if self._host is None:
                self._host = await asyncio.to_thread(inspect, INTERPRETER, self._lane)
                self._identities = Identities(self._lane, self._host.identities)

    async def close(self) -> None:
        """Removes what `open` made. No command may run any more."""
        await self._empty_groups()
        if self._egress is not None:
            await self._egress.close()
        shutil.rmtree(self._run, ignore_errors=True)

    async def _empty_groups(self) -> None:
        if self._top is not None:
            for name in self._top.names():
                if name.startswith(self._group_names):
                    await empty(self._top.below(name))

    @property
    def confined(self) -> bool:
        """Whether commands have a root of their own. `prepare` first."""
        assert self._host is not None
        return self._host.means.confined

    def inside(self, path: str, folder: Path) -> str:
        """Returns what a command calls a folder that it is given as ``path``."""
        return path if self.confined else str(folder)

    async def run(self, job: Job, on_line: Callable[[str], None]) -> None:
        """Runs a command and returns when it has succeeded. Cancelled, it ends the command first.

        Args:
            job: what to run.
            on_line: called with each line that it prints, on either stream.

        Raises:
            CommandFailed: it failed, or went over a limit.
            DriverError: there can be no sandbox for it.
        """
        await self.prepare()
        identity = self._identities.take()
        group = None if self._top is None else self._top.below(f"{self._group_names}{job.id}")
        place = self._run / job.id
        try:
            place.mkdir()
            await self._run_in(job, on_line, identity, group, place)
        finally:
            if group is not None:
                await empty(group)
            self._identities.give_back(identity)
            shutil.rmtree(place, ignore_errors=True)

    async def _run_in(
        self, job: Job, on_line: Callable[[str], None], identity: int, group: Group | None, place: Path
    ) -> None:
        plan = self._plan(job, identity, place)
        with ExitStack() as stack:
            fault, fault_end = _pipe(stack)
            answer, answer_end = _pipe(stack)
            wanted_end, wanted = _pipe(stack)
            namespace = await self._namespace(job, stack)
            doors = _doors(group, Limits(self._memory, None, _PROCESSES), stack)
            ends = Ends(
                fault_end.fileno(),
                answer_end.fileno(),
                namespace,
                doors,
                [] if group is None else group.directories,
            )
            process = await asyncio.create_subprocess_exec(
                INTERPRETER,
                *("-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP),
                *(Path(martlet.__file__).parent.parent, json.dumps(asdict(plan)), json.dumps(asdict(ends))),
                stdin=wanted_end,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                pass_fds=[
                    ends.fault,
                    ends.answer,
                    *doors,
                    *([] if namespace is None else [namespace]),
                    *job.held,
                ],
                start_new_session=True,
            )
            for end in (fault_end, answer_end, wanted_end):
                end.close()
            try:
                assert process.stdout is not None
                await relay(process.stdout, on_line)
                code = await process.wait()
            finally:
                wanted.close()
                await asyncio.shield(process.wait())
            self._judge(job, code, _read(fault), _answer(answer), group)

    def _judge(self, job: Job, code: int, fault: str, answer: dict[str, str], group: Group | None) -> None:
        if fault == OVER_DISK:
            raise CommandFailed(
                f"it wrote more than {format_bytes(self._disk)}", code, answer, "system.build_disk"
            )
        if fault:
            raise DriverError(f"no sandbox for the build: {fault}")
        usage = None if group is None else group.usage()
        if code != 0 and usage is not None and usage.oom_kills:
            raise CommandFailed(
                f"it took more memory than {format_bytes(self._memory)}", code, answer, "system.build_memory"
            )
        if code != 0:
            raise CommandFailed(f"{Path(job.command[0]).name} ended with exit code {code}", code, answer)

    def _plan(self, job: Job, identity: int, place: Path) -> Plan:
        assert self._host is not None
        means = self._host.means
        if not means.confined and means.users is Users.OWN:
            raise DriverError("builds need namespaces here: run `martlet doctor` to see why there are none")
        first, folder = next(iter(job.folders.items()))
        home = HOME if means.confined else str(place)
        certificates = _certificates()
        usual = {
            "PATH": SEARCH_PATH,
            "HOME": home,
            "TMPDIR": root.SCRATCH,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            **{name: str(path) for name, path in certificates.items()},
        }
        return Plan(
            command=list(job.command),
            environment={**usual, **self._environment, **job.environment},
            directory=self.inside(first, folder),
            own={path: str(each) for path, each in job.folders.items()},
            named={path: str(each) for path, each in job.named.items()},
            shown=[str(each) for each in (*job.shown, *self._shown, *certificates.values())],
            root=str(place),
            resolvers=Resolvers.find().text,
            network=self._network if job.network else Network.NONE,
            means=means,
            filtered=self._host.filtered,
            identity=identity,
            scratch=self._memory // 2,
            disk=self._disk,
            open_files=_OPEN_FILES,
            processes=_PROCESSES,
        )

    async def _namespace(self, job: Job, stack: ExitStack) -> int | None:
        if self._egress is None or not job.network or self._network is not Network.EGRESS:
            return None
        namespace = await self._egress.make()
        stack.callback(os.close, namespace)
        return namespace


def _certificates() -> dict[str, Path]:
    """Returns the files of trusted certificates, by the variables that name them."""
    named = {name: Path(value) for name, value in os.environ.items() if CERTIFICATES.fullmatch(name)}
    return {name: path for name, path in named.items() if path.is_absolute() and _is_public(path)}


def _is_public(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & stat.S_IROTH)


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return stack.enter_context(FileIO(reader, "r")), stack.enter_context(FileIO(writer, "w"))


def _doors(group: Group | None, limits: Limits, stack: ExitStack) -> list[int]:
    if group is None:
        return []
    group.create()
    group.limit(limits)
    doors = group.open_doors()
    for door in doors:
        stack.callback(os.close, door)
    return doors


def _read(pipe: FileIO) -> str:
    return (pipe.read(_LONGEST_ANSWER) or b"").decode("utf-8", "replace")


def _answer(pipe: FileIO) -> dict[str, str]:
    """Returns what a command says to the user: the texts of the JSON object that is its last line."""
    last = _read(pipe).strip().rpartition("\n")[2]
    with suppress(ValueError, RecursionError):
        said = json.loads(last)
        if isinstance(said, dict):
            return {name: plain(text) for name, text in said.items() if isinstance(text, str)}
    return {}
