"""``martlet doctor``."""

import io
import json
import socket
import sys
from contextlib import redirect_stdout

import pytest

from martlet.cli import checks, main
from martlet.cli.checks import Check
from martlet.config import load_settings
from martlet.drivers import firewall
from martlet.drivers.driver import Guarantee, State
from tests.conftest import require
from tests.namespaces import Namespace

PARROT = """
name = "parrot"
title = "Parrot"
[toolchain]
programs = ["parrot-that-nobody-has"]
version = ["{program}", "--version"]
debian = ["parrot"]
[start]
command = ["{program}"]
"""


CONFIG = "system:\n  function_storage_path: {data}\n  api_gateway_port: 0\n"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "faas.yaml"
    file.write_text(CONFIG.format(data=tmp_path / "data"))
    return file


def guarantee(state: State, *, needed: bool = True) -> Guarantee:
    return Guarantee("limits", "memory has a limit", state, "no cgroups", "delegate one", needed)


def sandbox(monkeypatch: pytest.MonkeyPatch, *guarantees: Guarantee) -> None:
    monkeypatch.setattr(checks, "check_sandbox", lambda settings: list(guarantees))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What it finds on this machine."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "faas.yaml").write_text(CONFIG.format(data=folder / "data"))
    with redirect_stdout(io.StringIO()) as said:
        main(["doctor", "-c", str(folder / "faas.yaml"), "--json"])
    return json.loads(said.getvalue())


def test_every_feature_of_this_host_is_looked_at(found):
    host = {check["feature"]: check for check in found["host"]}
    assert {
        "Linux kernel",
        "Python",
        "resolvers",
        "overlayfs",
        "open files",
        "data folder",
        "port",
    } <= host.keys()
    for check in host.values():
        assert check["found"]
        assert check["meaning"]
        assert check["remedy"] or check["held"]


def test_every_runtime_is_looked_at_and_what_is_missing_says_what_to_install(martlet, config, tmp_path):
    (tmp_path / "runtimes/parrot").mkdir(parents=True)
    (tmp_path / "runtimes/parrot/runtime.toml").write_text(PARROT)
    config.write_text(config.read_text() + f"  runtimes_path: {tmp_path / 'runtimes'}\n")
    result = martlet("doctor", "-c", config)
    rows = [line.split() for line in result.out.splitlines()]
    assert ["✗", "parrot", "missing"] in rows
    assert any(
        row[:3] == ["✓", f"python{sys.version_info.major}.{sys.version_info.minor}", "Python"] for row in rows
    )
    assert "parrot: there is no parrot-that-nobody-has in PATH" in result.err
    assert "To install it: apt-get install parrot" in result.err
    assert "parrot" in {
        each["feature"] for each in martlet("doctor", "-c", config, "--json").json["runtimes"]
    }


def test_every_guarantee_of_the_sandbox_is_looked_at(found):
    promised = {each["name"]: each for each in found["sandbox"]}
    assert {"files", "processes", "/proc", "shared memory", "host name", "network", "user"} <= promised.keys()
    assert {"privileges", "system calls", "Landlock", "limits", "egress"} <= promised.keys()
    for each in promised.values():
        assert each["promise"]
        assert each["state"] == "held" or (each["why"] and each["remedy"])


def test_the_table_says_what_is_held(martlet, config, monkeypatch):
    sandbox(monkeypatch, guarantee(State.HELD))
    result = martlet("doctor", "-c", config)
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["PROCESS", "SANDBOX", "STATE", "FUNCTIONS", "ARE", "PROMISED"]
    assert lines[1] == ["limits", "held", "memory", "has", "a", "limit"]
    assert ["FEATURE", "FOUND"] in lines


@pytest.mark.parametrize("state", [State.MISSING, State.WEAKER])
def test_what_is_not_held_says_why_and_what_to_do(martlet, config, monkeypatch, state):
    sandbox(monkeypatch, guarantee(state))
    result = martlet("doctor", "-c", config)
    assert result.code == 1
    assert f"limits: {state}, because no cgroups. What to do: delegate one." in result.err
    assert "Functions cannot run isolated here." in result.err


def test_what_strict_does_without_does_not_fail(martlet, config, monkeypatch):
    sandbox(monkeypatch, guarantee(State.MISSING, needed=False))
    result = martlet("doctor", "-c", config)
    assert "limits: missing" in result.err
    assert result.code == 0


def test_what_can_be_done_without_does_not_fail(martlet, config, monkeypatch):
    monkeypatch.setattr(
        checks, "check_host", lambda settings: [Check("overlayfs", False, "off", "layers", "load it")]
    )
    sandbox(monkeypatch)
    result = martlet("doctor", "-c", config)
    assert result.code == 0
    assert "overlayfs: layers.\n  Load it." in result.err


@pytest.mark.root
def test_a_firewall_that_may_drop_what_functions_send_is_named(martlet, config):
    require(firewall.find(), "nft")
    machine = Namespace()
    machine.run("nft", "table ip other { chain c { type filter hook forward priority 0; policy drop; }; }")

    with machine.entered():
        result = martlet("doctor", "-c", config, "--json")

    machine.close()
    found = {each["name"]: each for each in result.json["sandbox"]}["egress"]
    assert found["state"] == State.WEAKER
    assert "ip other" in found["why"]
    assert "links m*" in found["remedy"]


def test_a_port_in_use_is_seen(martlet, config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("port: 0", f"port: {port}"))
        found = {check["feature"]: check for check in martlet("doctor", "-c", config, "--json").json["host"]}
    assert not found["port"]["held"]
    assert str(port) in found["port"]["found"]


def test_it_leaves_no_folder_where_platforms_run(config):
    settings = load_settings(config)
    made = settings.run_directory / "lane-0"
    made.mkdir(parents=True)  # as to try a container takes

    checks.check_sandbox(settings.model_copy(update={"system": without_rungs(settings.system)}))

    assert not settings.run_directory.exists()


def without_rungs(system):
    """Settings by which nothing needs to be started."""
    return system.model_copy(update={"disable_container": True, "disable_microvm": True})
