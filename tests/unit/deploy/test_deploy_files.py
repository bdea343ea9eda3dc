"""What is in deploy/ names nothing that is not there: settings, options, variables, paths, ports, privileges."""

import copy
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from martlet.cli.app import app
from martlet.config import ENVIRONMENT, load_settings
from martlet.model import FunctionConfig
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE
from martlet.settings import Settings
from martlet.store_address import PASSWORD_VARIABLE
from martlet.units import parse_bytes
from martlet.validation import validated
from tests.conftest import require

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "martlet.service"
MACHINE = DEPLOY / "machine"
COMPOSE = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
OBJECTS = [each for each in yaml.safe_load_all((DEPLOY / "kubernetes/martlet.yaml").read_text()) if each]
OURS = {*ENVIRONMENT, PASSWORD_VARIABLE, QUEUE_PASSWORD_VARIABLE}
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"}
FAREWELL = 15.0
"""Seconds between the end of `drain_timeout` and that of the platform, as docs/cluster.md has it."""
OWN_MEMORY = 200 * 1024**2
"""Bytes that a platform takes for itself, as docs/operations.md has it."""
READ_BY_MACHINE = set(re.findall(r"\$\{?([A-Z]+)", MACHINE.read_text()))
"""Variables that the script of the image looks at."""


def kubernetes(kind: str, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Yields the objects of a kind."""
    return (each for each in OBJECTS if each["kind"] == kind and name in (None, each["metadata"]["name"]))


def workloads() -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] in ("Deployment", "StatefulSet")]


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


def machines() -> dict[str, dict[str, Any]]:
    """Returns the services of the compose file that are machines of Martlet."""
    return {name: each for name, each in COMPOSE["services"].items() if each["image"] == "martlet"}


def configurations() -> dict[str, str]:
    (config,) = kubernetes("ConfigMap")
    return {
        "compose": (DEPLOY / "compose/martlet.yaml").read_text(),
        "kubernetes": config["data"]["martlet.yaml"],
    }


def parsed(words: list[str]) -> Any:
    """Returns what the command line `martlet WORDS` means; raises where there is no such option."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command.make_context(command.name, list(words))


@pytest.mark.parametrize("where", configurations())
@pytest.mark.parametrize("roles", ["all", "gateway", "gateway,node", "gateway,builder,control"])
def test_configurations_load_for_each_role(where: str, roles: str, tmp_path: Path) -> None:
    file = tmp_path / "martlet.yaml"
    file.write_text(configurations()[where].replace("HERE", "10.0.0.1"))
    (secret,) = kubernetes("Secret")
    environment = secret["stringData"] if where == "kubernetes" else {}
    settings = load_settings(file, environment, {"roles": roles})
    assert str(settings.system.peer_address) == "10.0.0.1:8001"
    assert settings.system.clustered
    assert not settings.system.development


def test_the_unit_starts_what_is_there() -> None:
    (line,) = re.findall(r"^ExecStart=/opt/martlet/bin/martlet (.*)$", UNIT.read_text(), re.MULTILINE)
    context = parsed(shlex.split(line))
    assert context.info_name == "serve"
    assert str(context.params["config"]) == "/etc/martlet.yaml"
    (state,) = re.findall(r"^StateDirectory=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert Settings.model_validate({}).system.function_storage_path.name == state


def test_the_unit_is_one_by_systemds_own_word(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze (Debian: systemd)")
    unit = tmp_path / UNIT.name
    # It looks whether the program is there.
    unit.write_text(UNIT.read_text().replace("/opt/martlet/bin/martlet", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert str(unit) not in verified.stderr, verified.stderr
    assert verified.returncode == 0, verified.stderr


def test_the_documents_lead_to_the_unit() -> None:
    for document in ("operations", "deploying"):
        assert "](../deploy/martlet.service)" in (ROOT / f"docs/{document}.md").read_text()


@pytest.mark.parametrize("name", machines())
def test_machines_of_the_compose_file_are_started_as_they_can_be(name: str) -> None:
    machine = machines()[name]
    assert parsed(["serve", *machine["command"]]).params["role"]
    assert set(machine["environment"]) <= READ_BY_MACHINE | OURS | AWS
    assert machine["environment"]["ADDRESS"] == machine["hostname"] == name
    mounted = [volume.split(":")[1] for volume in machine["volumes"]]
    assert {"/etc/martlet/martlet.yaml", "/var/lib/martlet", "/cluster"} == set(mounted)
    assert machine["privileged"] is True
    (port,) = machine["ports"]
    assert port.startswith("127.0.0.1:"), "the port is for all the world"
    assert port.endswith(f":{Settings.model_validate({}).system.api_gateway_port}")
    assert "/health" in machine["healthcheck"]["test"][-1]
    first = machine["environment"].get("FIRST")
    assert first == (None if name == "first" else "http://first:8000")


def test_the_compose_file_has_all_that_its_machines_name() -> None:
    services, system = COMPOSE["services"], yaml.safe_load(configurations()["compose"])["system"]
    named = set(re.findall(r"(?:[@/,]|//)([a-z][a-z0-9-]*):\d+", f"{system['store']} {system['queue']}"))
    endpoint = re.search(r"endpoint=http://([a-z0-9]+):(\d+)", system["blobs"])
    assert endpoint is not None
    assert named | {endpoint[1]} == services.keys() - machines().keys()
    assert f"-s3.port={endpoint[2]}" in services["s3"]["command"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            there = source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).is_file()
            assert there, f"{source} is neither a volume nor a file"
        assert service.get("depends_on", {}).keys() <= services.keys()
    keys = yaml.safe_load((DEPLOY / "compose/s3.json").read_text())["identities"][0]["credentials"][0]
    environment = machines()["first"]["environment"]
    assert keys["accessKey"] == environment["AWS_ACCESS_KEY_ID"]
    assert keys["secretKey"] == environment["AWS_SECRET_ACCESS_KEY"]
    assert (DEPLOY / "compose" / COMPOSE["x-machine"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / COMPOSE["x-machine"]["build"]["dockerfile"]).is_file()


def test_the_compose_file_is_one_by_docker_composes_own_word() -> None:
    command = next((each for each in (["docker", "compose"], ["docker-compose"]) if is_compose(each)), None)
    if command is None:
        pytest.skip("docker compose 2 (Debian 13: docker-compose)")
    file = DEPLOY / "compose/compose.yaml"
    checked = subprocess.run([*command, "-f", file, "config", "--quiet"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def is_compose(command: list[str]) -> bool:
    """Whether a command is docker compose, of version 2 or newer."""
    if not shutil.which(command[0]):
        return False
    said = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
    return said.returncode == 0 and int(said.stdout.lstrip("v").split(".")[0]) >= 2


@pytest.mark.parametrize("workload", workloads(), ids=lambda each: each["metadata"]["name"])
def test_pods_are_started_as_they_can_be(workload: dict[str, Any]) -> None:
    pod, martlet = workload["spec"]["template"], container(workload)
    words = martlet.get("args") or shlex.split(martlet["command"][-1].split("exec machine ")[1])
    roles = parsed(["serve", *words]).params["role"].split(",")
    assert roles[-1] == workload["metadata"]["name"].removeprefix("martlet-")
    assert workload["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert {each["name"] for each in martlet.get("env", ())} <= READ_BY_MACHINE
    (secret,) = kubernetes("Secret")
    assert secret["stringData"].keys() <= OURS | AWS
    assert martlet["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    # The sandbox takes privileges, and a gateway has none.
    runs_code = not {"node", "builder"}.isdisjoint(roles)
    assert martlet["securityContext"].get("privileged", False) is runs_code
    assert martlet["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in martlet["resources"]["limits"]
    # Control's /ready asks the store, without which functions go on: it says when a pod has started, and nothing later.
    probes = {name: martlet[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert [probe["path"] for probe in probes.values()] == [
        "/ready",
        "/health" if "control" in roles else "/ready",
        "/health",
    ]
    ports = {each["name"]: each["containerPort"] for each in martlet["ports"]}
    system = validated(
        Settings, yaml.safe_load(configurations()["kubernetes"].replace("HERE", "10.0.0.1"))
    ).system
    assert system.peer_address is not None
    assert ports == {"http": system.api_gateway_port, "peers": system.peer_address.port}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    volumes = {each["name"] for each in pod["spec"]["volumes"]}
    volumes |= {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())}
    mounted = {each["name"]: each["mountPath"] for each in martlet["volumeMounts"]}
    assert mounted.keys() == volumes
    assert mounted["data"] == str(system.function_storage_path)
    assert f"CONFIG:-{mounted['config']}/martlet.yaml" in MACHINE.read_text()
    assert f"TOKEN:-{mounted['token']}/token" in MACHINE.read_text()


def refused(document: dict[str, Any]) -> str:
    """Returns what Kubernetes has against an object, by its own description of itself."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


@pytest.mark.parametrize("document", OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_objects_are_such_as_kubernetes_knows(document: dict[str, Any]) -> None:
    assert not refused(document)


def test_a_word_or_a_value_that_kubernetes_does_not_know_is_noticed() -> None:
    (workload,) = kubernetes("Deployment")
    misspelt, mistyped = copy.deepcopy(workload), copy.deepcopy(workload)
    container(misspelt)["livenessProbe"]["httpGet"]["paths"] = "/health"
    mistyped["spec"]["replicas"] = "two"
    assert "paths" in refused(misspelt)
    assert "two" in refused(mistyped)


def test_who_is_told_to_stop_has_the_time_that_it_takes() -> None:
    times = [each["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for each in workloads()]
    times += [int(each["stop_grace_period"].removesuffix("s")) for each in machines().values()]
    times += [int(each) for each in re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)]
    assert len(times) == len(workloads()) + len(machines()) + 1
    for name, text in configurations().items():
        system = validated(Settings, yaml.safe_load(text.replace("HERE", "10.0.0.1"))).system
        assert min(times) >= system.stop_notice + system.drain_timeout + FAREWELL, name


def test_a_node_of_kubernetes_holds_no_more_functions_than_its_memory_does() -> None:
    (node,) = (each for each in workloads() if each["metadata"]["name"] == "martlet-node")
    limit = parse_bytes(container(node)["resources"]["limits"]["memory"])
    settings = validated(Settings, yaml.safe_load(configurations()["kubernetes"].replace("HERE", "10.0.0.1")))
    assert settings.system.max_concurrent_functions * FunctionConfig().memory + OWN_MEMORY <= limit


def test_services_of_kubernetes_lead_to_pods() -> None:
    for service in kubernetes("Service"):
        chosen = [
            each
            for each in workloads()
            if service["spec"]["selector"].items() <= each["spec"]["selector"]["matchLabels"].items()
        ]
        assert len(chosen) == 1
        ports = container(chosen[0])["ports"]
        known = {each["name"] for each in ports} | {each["containerPort"] for each in ports}
        assert {port.get("targetPort", port["port"]) for port in service["spec"]["ports"]} <= known
    for workload in kubernetes("StatefulSet"):
        assert any(kubernetes("Service", workload["spec"]["serviceName"]))


def test_the_image_has_what_it_is_made_of() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    assert copied
    ignored, *let_in = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert ignored == "*"
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in let_in, f"{source} is not sent to who builds the image"
    assert "EXPOSE 8000 8001" in (DEPLOY / "Containerfile").read_text()


class Recorder:
    """A program `martlet` that writes down how it is called, and does what leaves traces."""

    def __init__(self, folder: Path) -> None:
        self.data, self.calls = folder / "data", folder / "calls"
        self.token, self.config = folder / "cluster" / "token", folder / "martlet.yaml"
        self.config.write_text("system:\n  peer_address: HERE:8001\n")
        (folder / "bin").mkdir()
        program = folder / "bin" / "martlet"
        made = f"{self.data}/cluster"
        program.write_text(
            f"""#!/bin/sh
echo "$@" >>{self.calls}
mkdir -p {made}
case "$2" in
  init) touch {made}/ca.key {made}/node.crt ;;
  token) echo martlet-1.a-token ;;
  join) [ -e {folder}/refused ] || {{ touch {folder}/refused; exit 8; }}; touch {made}/node.crt ;;
esac
"""
        )
        program.chmod(0o755)
        self._path = f"{folder}/bin:/usr/bin:/bin"

    def run(self, **environment: str) -> list[str]:
        """Runs the script of the image; returns how it has called the program."""
        self.calls.write_text("")
        paths = {"CONFIG": self.config, "DATA": self.data, "TOKEN": self.token}
        environment |= {name: str(path) for name, path in paths.items()}
        subprocess.run(
            [MACHINE, "--role", "all"], env={"PATH": self._path, **environment}, check=True, timeout=30
        )
        calls = self.calls.read_text().splitlines()
        for call in calls:
            parsed(shlex.split(call))
        return [call.partition(f" -c {self.data}")[0] for call in calls]


def test_the_first_container_begins_the_cluster_once_and_the_others_join_it(tmp_path: Path) -> None:
    first = Recorder(tmp_path)
    first.token.parent.mkdir()
    begun = ["cluster init", "cluster token --expires-in 1d", "serve"]
    assert first.run(ADDRESS="first") == begun
    assert first.run(ADDRESS="first") == begun[1:]
    assert first.token.read_text() == "martlet-1.a-token\n"
    assert first.token.stat().st_mode & 0o777 == 0o600
    settled = yaml.safe_load((first.data / "martlet.yaml").read_text())
    assert settled == {"system": {"peer_address": "first:8001"}}
    shutil.rmtree(first.data)
    join = "cluster join http://first:8000 martlet-1.a-token"
    assert first.run(ADDRESS="second", FIRST="http://first:8000") == [join, join, "serve"]
    assert first.run(ADDRESS="second", FIRST="http://first:8000") == ["serve"]


def test_a_container_without_an_address_says_what_it_lacks(tmp_path: Path) -> None:
    refused = subprocess.run([MACHINE], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "ADDRESS: the name or address of this machine" in refused.stderr
