"""A template by a Firecracker of its own, and clones of it as a warden has them: every request is valid by its API."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from martlet.drivers import launch
from martlet.http.fetch import fetch
from martlet.microvm import folders, kvm, machines, warden
from martlet.microvm import templates as made_templates
from martlet.microvm.control import CONTROL, LINKS, LOG, Control
from martlet.microvm.firecracker import machine, template
from martlet.microvm.firecracker.machine import FirecrackerMachine
from martlet.microvm.firecracker.probe import Finding, Version
from martlet.microvm.firecracker.template import Firecracker
from martlet.microvm.kernel import Kernel
from martlet.microvm.machine import MEMORY_FILE, ROOT_FILE, SCRIPT_FILE, STATE_FILE
from martlet.microvm.templates import Templates
from martlet.runtimes import Catalogue
from martlet.sandbox import guest_link
from martlet.sandbox.inside import CONFINEMENT, Task
from martlet.sandbox.namespaces import fork
from martlet.sandbox.program import Program
from tests.conftest import require
from tests.namespaces import Namespace

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[3]
SECONDS = 20.0
WORDS = ("quiet", "panic=-1")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for Firecracker: its stand-in, as a program."""
    require(os.path.exists("/dev/net/tun"), "/dev/net/tun")
    path = tmp_path_factory.mktemp("program") / "firecracker"
    paths = f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"
    start = f"PYTHONPATH={shlex.quote(paths)} exec {shlex.quote(sys.executable)} -m tests.fake_firecracker"
    path.write_text(f'#!/bin/sh\necho "$*" > arguments\n{start}\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def saved(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template, in the place that the wardens of these tests look for it."""
    work = tmp_path_factory.mktemp("template")
    (work / ROOT_FILE).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "PLACE", str(work))
        template.make(program, work / ROOT_FILE, work / ROOT_FILE, WORDS, work, SECONDS)
    return work


@contextmanager
def clone(
    program: Path, saved: Path, folder: Path, patch: pytest.MonkeyPatch
) -> Iterator[tuple[FirecrackerMachine, Callable[[], dict[str, int]]]]:
    """A clone, and what starts it."""
    patch.setattr(machine, "PLACE", str(saved))
    patch.setattr(machine, "_SCRATCH", str(folder))
    namespace, monitors = Namespace(), []
    with namespace.entered():
        made = FirecrackerMachine(SECONDS)

    def start() -> dict[str, int]:
        with namespace.entered():
            return made.start(machine.command(str(program)), lambda child: monitors.append(fork(child)))

    try:
        yield made, start
    finally:
        for monitor in monitors:
            os.kill(monitor, signal.SIGKILL)
            os.waitpid(monitor, 0)
        namespace.close()
    assert (folder / "invalid").read_text() == ""


def told(folder: Path) -> list[tuple[str, str, Any]]:
    return [tuple(json.loads(line)) for line in (folder / "calls").read_text().splitlines()]


def test_a_template_is_booted_awaited_and_saved(saved: Path):
    calls = told(saved)

    assert [path for _, path, _ in calls] == [
        "/machine-config",
        "/boot-source",
        "/drives/root",
        "/network-interfaces/eth0",
        "/mmds/config",
        "/vsock",
        "/actions",
        "/vm",
        "/snapshot/create",
    ]
    assert calls[1][2]["boot_args"] == "quiet panic=-1"
    assert calls[2][2] | {"is_read_only": True} == calls[2][2]
    assert (saved / "invalid").read_text() == ""
    assert (saved / "arguments").read_text() == "--api-sock api.sock\n"
    assert {MEMORY_FILE, STATE_FILE, SCRIPT_FILE} <= set(os.listdir(saved))
    assert not {machine.API, machine.VSOCK, "log"} & set(os.listdir(saved))


def test_clones_go_on_with_ports_and_variables_of_their_own(
    program: Path, saved: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens = []
    for number in range(2):
        folder = short_path / str(number)
        folder.mkdir()
        with clone(program, saved, folder, monkeypatch) as (made, start):
            ports = start()
            assert set(ports) == {CONTROL, LOG, *LINKS}
            assert (folder / ROOT_FILE).samefile(saved / ROOT_FILE)

            tokens.append(made.tell({"KEY": f"secret {number}"}))
            control = Control(ports[CONTROL])
            control.send(op="equip", token=tokens[-1])
            (folder / "code").mkdir()
            control.send_folder(folders.pack(str(folder / "code")))
            assert control.receive() == {"event": "equipped"}
            for descriptor in ports.values():
                os.close(descriptor)
        (load, _) = told(folder)
        assert (load[1], load[2]["resume_vm"]) == ("/snapshot/load", True)
    assert len(set(tokens)) == 2


def test_a_warden_has_the_whole_conversation_with_a_clone(
    program: Path, saved: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From its start to its end, by the requests that a lane sends."""
    for module in (machine, machines):
        monkeypatch.setattr(module, "PLACE", str(saved))
    monkeypatch.setattr(machine, "_SCRATCH", str(short_path))
    (short_path / "function").mkdir()
    monkeypatch.setattr(warden.root, "FUNCTION", str(short_path / "function"))
    at = str(short_path / "sock")
    document = {
        "environment": {"KEY": "s3cret"},
        "dependencies": None,
        "memory": 1 << 27,
        CONFINEMENT: {"hostname": "f", "processes": 128, "open_files": 64, "scratch": 1 << 20},
    }
    namespace = Namespace()
    with namespace.entered(), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(at)
        listener.listen()
        pid = fork(lambda: be_warden(listener, program))
    namespace.close()
    try:
        answer = ask(at, "POST", "/_martlet/specialise", document)
        assert answer["told"] == {"KEY": "s3cret"}
        assert "s3cret" not in answer["asked"]
        assert json.loads(answer["asked"].partition("\r\n\r\n")[2]) == document | {"environment": {}}
        assert ask(at, "GET", "/hello", None)["asked"].startswith("GET /hello HTTP/1.1")
        monitors = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(monitors) == 1
    finally:
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        for monitor in monitors:  # which the end of a PID namespace ends otherwise
            os.kill(int(monitor), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [path for _, path, _ in told(short_path)] == ["/snapshot/load", "/mmds"]
    assert (short_path / "invalid").read_text() == ""


def be_warden(listener: socket.socket, program: Path) -> NoReturn:
    try:
        command = Program(machine.command(str(program)), {}, "warm", "descriptor")
        assert not warden.begin(command)
        assert warden.warm() == ()
        warden.serve(listener, lambda document: None, command, fork)
    finally:
        os._exit(1)


def ask(at: str, method: str, path: str, document: Any) -> dict[str, Any]:
    status, body = asyncio.run(fetch(at, method, path, document, timeout=SECONDS))
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_guest_without_a_way_out_has_a_device_that_leads_nowhere(
    program: Path, saved: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with clone(program, saved, short_path, monkeypatch) as (made, start):
        assert made.address.is_link_local
        start()


def test_a_template_of_another_kind_is_refused_in_words(
    program: Path, saved: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
):
    damaged = short_path / "template"
    damaged.mkdir()
    script = json.loads((saved / SCRIPT_FILE).read_text())
    script[0][2]["snapshot_path"] = str(damaged / STATE_FILE)
    (damaged / SCRIPT_FILE).write_text(json.dumps(script))
    (damaged / STATE_FILE).write_text("nonsense")
    folder = short_path / "clone"
    folder.mkdir()

    refused = pytest.raises(OSError, match="make the snapshot anew with this release of Firecracker")
    with clone(program, damaged, folder, monkeypatch) as (_, start), refused:
        start()


@pytest.fixture
def templates(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Templates:
    """Templates on a machine that has Firecracker, and a KVM that runs guests."""
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
    monkeypatch.setattr(kvm, "find", lambda program: Finding("KVM", True, "it runs guests"))
    monkeypatch.setattr(made_templates, "monitor", lambda: shutil.which("true"))
    monkeypatch.setattr(template, "find", lambda: Firecracker(program, Version(1, 12, 1)))
    found = Kernel("1", tmp_path / "vmlinux", tmp_path / "vmlinux")
    monkeypatch.setattr(made_templates, "debian_kernel", lambda *_: found)
    monkeypatch.setattr(
        made_templates, "base_of", lambda _, runtime, __: SimpleNamespace(digest="0", runtime=runtime)
    )
    monkeypatch.setattr(made_templates, "build_root", lambda *arguments: arguments[-1].touch())
    return Templates(tmp_path / "templates", print)


def of(templates: Templates) -> Path:
    runtime = Catalogue.load().resolve("python")
    return templates.of(runtime, lambda runtime: Task("", "", None, own_kernel=False))


def test_a_machine_that_has_it_makes_templates_by_it_and_starts_their_clones_by_it(
    templates: Templates, program: Path
):
    made = of(templates)

    assert json.loads((made / SCRIPT_FILE).read_text())[0][2]["snapshot_path"] == f"/.template/{STATE_FILE}"
    start = launch.of(made, "qemu", accelerated=True, linked=False)
    assert start.command == ["/.firecracker", "--api-sock", "api.sock"]
    assert start.shown == {"/.template": str(made), "/.firecracker": str(program)}
    assert start.devices == {"kvm": 0o666, "net/tun": 0o666}


def test_a_machine_goes_on_without_it_where_it_does_not_start_a_guest(
    templates: Templates, program: Path, monkeypatch: pytest.MonkeyPatch
):
    failing = shutil.which("false")
    monkeypatch.setattr(template, "find", lambda: Firecracker(Path(str(failing)), Version(1, 12, 1)))
    monkeypatch.setattr(made_templates, "ACCELERATED_SECONDS", 0.1)
    by: list[str] = []
    monkeypatch.setattr(made_templates, "_boot", lambda *_, accelerated: by.append(f"KVM: {accelerated}"))

    made = of(templates)

    assert by == ["KVM: True"]
    assert launch.of(made, "/usr/bin/qemu", accelerated=True, linked=True).devices == {
        "kvm": 0o666,
        "net/tun": 0o600,
    }
    assert "/.firecracker" not in launch.of(made, "/usr/bin/qemu", accelerated=True, linked=True).shown


def test_a_program_that_ends_is_said_with_its_last_words(tmp_path: Path):
    program = tmp_path / "firecracker"
    program.write_text("#!/bin/sh\necho no seccomp here\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(OSError, match=r"has not started within 0\.2 s.*no seccomp here"):
        template.make(program, tmp_path, tmp_path, WORDS, tmp_path, 0.2)
    assert not (tmp_path / SCRIPT_FILE).exists()
    assert guest_link.TAP not in os.listdir("/sys/class/net")
