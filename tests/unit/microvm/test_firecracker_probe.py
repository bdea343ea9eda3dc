"""What is said of a machine that has Firecracker, parts of it, or nothing."""

import os
from pathlib import Path

import pytest

from martlet.microvm.firecracker.probe import Probe, Version, probe


def install(folder: Path, name: str, said: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)


def install_both(folder: Path, firecracker: str, jailer: str) -> None:
    # It says more than its version, and logs that it ends.
    install(
        folder,
        "firecracker",
        f"echo 'Firecracker v{firecracker}'; echo; echo 'Supported snapshot: 1'; echo x >&2",
    )
    install(folder, "jailer", f"echo 'Jailer v{jailer}'")


def look(folder: Path, kvm: Path | None = None, machine: str = "x86_64") -> Probe:
    return probe(str(folder), kvm or folder / "kvm", machine)


def said_of(found: Probe, what: str) -> str:
    return next((sentence for sentence in found.sentences() if sentence.startswith(f"{what}: ")), "")


def test_a_bare_machine_is_told_what_to_install(tmp_path: Path):
    found = look(tmp_path)

    assert not found.usable
    assert (found.firecracker, found.jailer) == (None, None)
    for name in ("firecracker", "jailer"):
        sentence = said_of(found, name)
        assert "it is not on the PATH" in sentence
        assert "1.7.0 or newer" in sentence
        assert f"install -m 755 {name}-v* /usr/local/bin/{name}" in sentence
    assert "modprobe kvm_intel or kvm_amd" in said_of(found, "KVM")


@pytest.mark.parametrize("version", ["1.7.0", "1.12.1", "1.16.1", "1.17.0-dev", "1.100.3"])
def test_supported_releases(tmp_path: Path, version: str):
    install_both(tmp_path, version, version)
    found = look(tmp_path)

    assert found.firecracker is not None
    assert str(found.firecracker.version) == version.removesuffix("-dev")
    assert [each.what for each in found.findings if not each.held] == ["KVM"]


@pytest.mark.parametrize("version", ["1.6.9", "0.25.0", "2.0.0"])
def test_other_releases_are_named(tmp_path: Path, version: str):
    install_both(tmp_path, version, version)
    found = look(tmp_path)

    assert not found.usable
    assert f"{version}, is not supported. What to do: " in said_of(found, "firecracker")
    assert f"{version}, is not supported" in said_of(found, "jailer")


def test_programs_of_two_releases_are_not_used_together(tmp_path: Path):
    install_both(tmp_path, "1.12.1", "1.12.0")
    found = look(tmp_path)

    assert "of 1.12.1 and the jailer of 1.12.0" in said_of(found, "firecracker and jailer")
    assert not found.usable


def test_a_release_whose_clones_are_deaf_is_warned_of(tmp_path: Path):
    install_both(tmp_path, "1.16.0", "1.16.0")
    found = look(tmp_path)

    assert "install 1.16.1 or newer" in said_of(found, "firecracker")
    assert [each.what for each in found.findings if not each.held] == ["KVM"]


@pytest.mark.parametrize("said", ["echo hello", "exit 1", "echo 'Firecracker v1'", "printf '\\377'"])
def test_a_program_that_does_not_say_its_version_is_none(tmp_path: Path, said: str):
    install(tmp_path, "firecracker", said)
    found = look(tmp_path)

    assert found.firecracker is not None
    assert found.firecracker.version is None
    assert "does not say its version" in said_of(found, "firecracker")


def test_what_is_in_the_place_of_kvm_is_told_apart(tmp_path: Path):
    (tmp_path / "kvm").touch()
    assert "is not the kernel's KVM" in said_of(look(tmp_path), "KVM")
    assert "is not the kernel's KVM" in said_of(look(tmp_path, kvm=Path("/dev/null")), "KVM")
    assert "does not open" in said_of(look(tmp_path, kvm=tmp_path), "KVM")


@pytest.mark.root
def test_who_may_not_open_kvm_is_told_how_to(tmp_path: Path):
    (tmp_path / "kvm").touch(mode=0o600)
    os.seteuid(65_534)
    try:
        sentence = said_of(look(tmp_path), "KVM")
    finally:
        os.seteuid(0)
    assert "this user may not open" in sentence
    assert "usermod -aG kvm" in sentence


def test_the_kernel_of_this_machine_is_asked(tmp_path: Path):
    device = Path("/dev/kvm")
    if not os.access(device, os.R_OK | os.W_OK):
        pytest.skip("this machine gives this user no /dev/kvm, which no package brings: not tried")
    install_both(tmp_path, "1.12.1", "1.12.1")
    found = look(tmp_path, kvm=device)

    assert found.usable
    assert found.sentences() == []
    assert "known only when one has" in found.findings[-1].found


def test_another_processor_is_named(tmp_path: Path):
    assert "riscv64. What to do: Firecracker runs on x86_64 and aarch64 only" in said_of(
        look(tmp_path, machine="riscv64"), "processor"
    )


def test_releases_are_in_order():
    assert Version(1, 7, 0) < Version(1, 12, 0) < Version(2, 0, 0)
