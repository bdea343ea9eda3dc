"""``martlet doctor``."""

import socket

import pytest

from martlet.cli import checks
from martlet.cli.checks import Check
from martlet.drivers import firewall
from martlet.drivers.driver import Missing
from tests.conftest import require
from tests.namespaces import Namespace


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "faas.yaml"
    file.write_text(f"system:\n  function_storage_path: {tmp_path / 'data'}\n  api_gateway_port: 0\n")
    return file


class Rung:
    name = "process"

    def __init__(self, *missing: Missing) -> None:
        self.missing = list(missing)

    def probe(self) -> list[Missing]:
        return self.missing


def test_every_feature_of_this_host_is_looked_at(martlet, config):
    found = {check["feature"]: check for check in martlet("doctor", "-c", config, "--json").json}
    expected = {
        "Linux kernel",
        "Python",
        "root",
        "egress",
        "resolvers",
        "cgroups",
        "overlayfs",
        "seccomp",
        "Landlock",
        "uv",
        "open files",
    }
    expected |= {f"{name} namespace" for name in ("mount", "uts", "ipc", "user", "pid", "network")}
    assert expected | {"data folder", "port"} <= found.keys()
    assert any(feature.startswith("process rung") for feature in found)
    for check in found.values():
        assert check["found"]
        assert check["meaning"]
        assert check["remedy"] or check["held"]


def test_the_table_marks_what_is_held(martlet, config, monkeypatch):
    monkeypatch.setattr(checks, "_drivers", lambda settings: [Rung()])
    lines = martlet("doctor", "-c", config).out.splitlines()
    assert lines[0].split() == ["FEATURE", "FOUND"]
    assert any(line.split() == ["✓", "process", "rung", "a", "sandbox", "was", "made"] for line in lines)


def test_what_is_missing_says_what_follows_and_what_to_do(martlet, config, monkeypatch):
    missing = Missing("cgroups", "functions have no limit", "run Martlet as root")
    monkeypatch.setattr(checks, "_drivers", lambda settings: [Rung(missing)])
    result = martlet("doctor", "-c", config)
    assert result.code == 1
    assert "process rung: cgroups: functions have no limit.\n  Run Martlet as root." in result.err
    assert "Functions cannot run isolated here." in result.err


def test_what_can_be_done_without_does_not_fail(martlet, config, monkeypatch):
    monkeypatch.setattr(
        checks, "check_host", lambda settings: [Check("overlayfs", False, "off", "layers", "load it")]
    )
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
    found = {check["feature"]: check for check in result.json}["egress"]
    assert not found["held"]
    assert "ip other" in found["found"]
    assert "links m*" in found["remedy"]


def test_a_port_in_use_is_seen(martlet, config):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("port: 0", f"port: {port}"))
        found = {check["feature"]: check for check in martlet("doctor", "-c", config, "--json").json}
    assert not found["port"]["held"]
    assert str(port) in found["port"]["found"]
