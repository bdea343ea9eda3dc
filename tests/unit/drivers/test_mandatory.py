"""What AppArmor or SELinux of a machine has for containers: read from made-up files, told to engines, and found out."""

import os
import shutil
from pathlib import Path

import pytest

from martlet.drivers import engines, mandatory
from martlet.drivers.driver import State
from martlet.drivers.mandatory import Labels
from martlet.runtimes import Catalogue
from martlet.sandbox.bundle import Frame, Own, make
from martlet.settings import SystemSettings
from tests.conftest import require

CONTEXTS = """process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
"""
SELINUX = Labels("", "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("loaded", "profile"),
    [
        ("/usr/bin/man (enforce)\ndocker-default (enforce)\n", "docker-default"),
        ("containers-default-0.50.1 (enforce)\n", "containers-default-0.50.1"),
        ("docker-default (complain)\ncri-containerd.apparmor.d (enforce)\n", "cri-containerd.apparmor.d"),
        ("docker-default (complain)\n/usr/sbin/cupsd (enforce)\n", ""),
        ("", ""),
    ],
)
def test_a_profile_of_containers_that_is_enforced_is_found(tmp_path: Path, loaded: str, profile: str):
    write(tmp_path / "kernel/security/apparmor/profiles", loaded)

    assert Labels.find(tmp_path, tmp_path / "nothing") == Labels(profile)


def test_the_contexts_of_the_policy_are_found_where_selinux_is_on(tmp_path: Path):
    policies = tmp_path / "etc"
    write(policies / "config", "# which policy\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
    write(policies / "targeted/contexts/lxc_contexts", CONTEXTS)

    assert Labels.find(tmp_path, policies) == Labels()
    write(tmp_path / "fs/selinux/enforce", "1")
    assert Labels.find(tmp_path, policies) == SELINUX


def test_a_machine_with_neither_has_none(tmp_path: Path):
    assert not Labels.find(tmp_path, tmp_path)


def test_engines_are_told(tmp_path: Path):
    own = Own(1000, "", binds={}, writable={}, group="")

    plain = make(Frame("/root", {}, ["/program"], profile=""), own)
    frame = Frame("/root", {}, [], "docker-default", process_label=SELINUX.process, file_label=SELINUX.files)
    told = make(frame, own)

    assert not {"apparmorProfile", "selinuxLabel"} & plain["process"].keys()
    assert "mountLabel" not in plain["linux"]
    assert told["process"]["apparmorProfile"] == "docker-default"
    assert told["process"]["selinuxLabel"] == SELINUX.process
    assert told["linux"]["mountLabel"] == SELINUX.files


def test_what_is_in_force_is_what_the_kernel_says():
    said = Path(f"/proc/{os.getpid()}/attr/current")
    try:
        current = said.read_text().strip("\0\n")
    except OSError:
        current = ""
    assert mandatory.in_force(os.getpid()) == ("" if current == "unconfined" else current)


@pytest.mark.parametrize(
    ("wanted", "found", "state"),
    [
        (Labels("docker-default"), "docker-default (enforce)", State.HELD),
        (Labels("docker-default"), "", State.WEAKER),
        (Labels(), "", State.MISSING),
    ],
)
def test_doctor_says_what_is_in_force(wanted: Labels, found: str, state: State):
    said = mandatory.guarantee(wanted, found)

    assert (said.state, said.broken) == (state, False)
    assert (found or wanted.profile or "no profile of AppArmor") in said.why


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    "labels",
    [Labels("no-such-profile"), Labels("", "system_u:system_r:no_such_t:s0")],
    ids=["AppArmor", "SELinux"],
)
def test_containers_do_without_what_none_starts_under(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch, labels: Labels
):
    require(shutil.which("crun"), "crun")
    monkeypatch.setattr(Labels, "find", classmethod(lambda _: labels))
    settings = SystemSettings(function_storage_path=tmp_path / "data", container_runtime="crun")

    choice = engines.choose(settings, short_path / "run", Catalogue.of(settings))

    assert (choice.engine, choice.label) == ("crun", "none")
    assert [(each.name, each.broken) for each in choice.guarantees] == [
        ("containers", False),
        ("container label", False),
    ]
    assert choice.guarantees[0].state is State.HELD
    assert not list((tmp_path / "data").glob("packages/.*"))
