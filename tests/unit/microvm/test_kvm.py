"""Whether KVM runs guests is found by running one; a monitor that a test has written says how that goes."""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from martlet.microvm import kvm, qemu, templates
from martlet.microvm.firecracker.probe import Finding
from martlet.microvm.kernel import Kernel
from martlet.runtimes import Catalogue
from martlet.sandbox.inside import Task
from tests.conftest import require

DEVICE = Path("/dev/null")
"""Stands for the device of KVM, whose own answers `test_firecracker_probe` tests."""


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "of_device", lambda device: Finding("KVM", True, f"{device} opens"))


def stand_in(folder: Path, does: str) -> str:
    """A monitor that says in ``calls`` that it was started, and where its guest lies."""
    program = folder / "qemu"
    program.write_text(f'#!/bin/sh\necho "$*" >> {folder}/calls\necho $$ > {folder}/pid\n{does}\n')
    program.chmod(0o755)
    return str(program)


def find(program: str, folder: Path) -> Finding:
    return kvm.find(program, folder / "kept", DEVICE, seconds=5.0)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_a_guest_that_says_its_word_shows_that_it_runs(tmp_path: Path):
    look = 'while test "$1" != -bios; do shift; done; test $(wc -c < "$2") = 65536 || exit 1'
    program = stand_in(tmp_path, f"{look}\nexit {kvm.DONE}")

    found = find(program, tmp_path)

    assert (found.held, found.remedy) == (True, "")
    assert "-accel kvm" in calls(tmp_path)[0]


def test_one_that_hangs_is_ended_at_the_deadline_and_nothing_is_left(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "guests"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "guests").mkdir()
    program = stand_in(tmp_path, "exec sleep 1000")

    found = kvm.find(program, tmp_path / "kept", DEVICE, seconds=0.5)

    assert not found.held
    assert "did not get through 30 ms of work within 0.5 s" in found.found
    assert "kvm.json" in found.remedy
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert os.listdir(tmp_path / "guests") == []


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("echo failed to initialize kvm: Permission denied >&2; exit 1", "initialize kvm: Permission denied"),
        ("exit 0", "it ended with 0"),
        ("kill -9 $$", "it ended with -9"),
    ],
)
def test_a_refusal_is_said_in_the_words_of_the_monitor(tmp_path: Path, does: str, why: str):
    found = find(stand_in(tmp_path, does), tmp_path)

    assert not found.held
    assert found.found == f"qemu runs no guest under it: {found.found.partition(': ')[2]}"
    assert why in found.found


def test_an_answer_is_kept_until_the_monitor_is_another(tmp_path: Path):
    program = stand_in(tmp_path, "exit 1")
    assert find(program, tmp_path) == find(program, tmp_path)
    assert len(calls(tmp_path)) == 1

    stand_in(tmp_path, f"exit {kvm.DONE}  # an upgrade")

    assert find(program, tmp_path).held
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"of": "another boot", "held": true}'])
def test_what_is_kept_of_something_else_counts_for_nothing(tmp_path: Path, kept: str):
    program = stand_in(tmp_path, "exit 1")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / kvm.FILE).write_text(kept)

    assert not find(program, tmp_path).held
    assert len(calls(tmp_path)) == 1


def test_without_the_device_no_guest_is_started(tmp_path: Path, monkeypatch):
    absent = Finding("KVM", False, "there is no /dev/kvm", "load the kernel's module")
    monkeypatch.setattr(kvm, "of_device", lambda device: absent)
    program = stand_in(tmp_path, f"exit {kvm.DONE}")

    assert find(program, tmp_path) == absent
    assert not (tmp_path / "calls").exists()


def test_a_guest_that_mattered_and_did_not_run_counts_from_then_on(tmp_path: Path):
    program = stand_in(tmp_path, f"exit {kvm.DONE}")
    assert find(program, tmp_path).held

    kvm.refute(program, "a guest for python did not start", tmp_path / "kept", DEVICE)

    found = find(program, tmp_path)
    assert (found.held, found.found) == (False, "a guest for python did not start")
    assert len(calls(tmp_path)) == 1


def test_the_guest_does_its_work_on_an_emulated_processor(tmp_path: Path):
    program = shutil.which(qemu.PROGRAM)
    require(program, qemu.PROGRAM)
    rom = tmp_path / "rom"
    rom.write_bytes(kvm.guest())

    ended = subprocess.run(kvm.command(str(program), str(rom), "tcg"), check=False, timeout=60)

    assert ended.returncode == kvm.DONE


def test_the_truth_of_this_machine_is_found_and_kept(tmp_path: Path, monkeypatch):
    monkeypatch.undo()
    program = shutil.which(qemu.PROGRAM)
    require(program, qemu.PROGRAM)
    found = kvm.find(str(program), tmp_path)

    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert found.held or "within" in found.found or "runs no guest" in found.found
        assert (tmp_path / kvm.FILE).is_file()
    assert found.held or found.remedy
    assert kvm.find(str(program), tmp_path, seconds=0.001) == found  # which no guest meets


def test_a_template_that_does_not_start_under_kvm_is_made_without(tmp_path: Path, monkeypatch):
    tries = f'case "$*" in --version) exit 0;; *isa-debug-exit*) exit {kvm.DONE};; esac; exit 1'
    program = stand_in(tmp_path, tries)
    here = {"folder": tmp_path / "kept", "device": DEVICE}
    monkeypatch.setattr(kvm, "find", partial(kvm.find, **here))
    monkeypatch.setattr(kvm, "refute", partial(kvm.refute, **here))
    monkeypatch.setattr(templates, "monitor", lambda: program)
    monkeypatch.setattr(templates, "debian_kernel", lambda *_: Kernel("1", tmp_path, tmp_path))
    monkeypatch.setattr(
        templates, "base_of", lambda _, runtime, __: SimpleNamespace(digest="0", runtime=runtime)
    )
    monkeypatch.setattr(templates, "build_root", lambda *_: None)
    said: list[str] = []
    made = templates.Templates(tmp_path / "templates", said.append)

    with pytest.raises(OSError, match="did not start"):
        made.of(Catalogue.load().resolve("python"), lambda runtime: Task("", "", None, own_kernel=False))

    machines = [call.partition("-accel ")[2] for call in calls(tmp_path) if "-accel" in call]
    accelerators = [machine.split()[0].partition(",")[0] for machine in machines]
    assert accelerators == ["kvm", "kvm", "tcg"]
    assert not made.accelerated()
    assert any("going on without KVM" in line for line in said)
