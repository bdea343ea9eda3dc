"""``martlet config``."""

import pytest
import yaml

from martlet.config import load_settings
from martlet.settings import DeclaredFunction, Settings, SystemSettings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in ("CONFIG_FILE", "DEFAULT_MODE", "API_PORT", "LOG_LEVEL", "DISABLE_CONTAINER"):
        monkeypatch.delenv(f"FAAS_{name}", raising=False)


def test_the_sample_can_be_checked_at_once_and_changes_nothing(martlet, tmp_path):
    file = tmp_path / "faas.yaml"
    assert martlet("config", "create", file).code == 0
    assert martlet("config", "check", file).code == 0
    assert load_settings(file, environment={}) == Settings()


def test_the_sample_uncommented_is_the_defaults(martlet, tmp_path):
    text = martlet("config", "create", "-").out
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("# ")]
    uncommented = "\n".join(
        line.replace("#", "", 1) if line.lstrip().startswith("#") else line for line in lines
    )
    (tmp_path / "faas.yaml").write_text(uncommented)
    settings = load_settings(tmp_path / "faas.yaml", environment={})
    assert settings.system == SystemSettings()
    assert settings.functions == {"hello": DeclaredFunction.model_validate(DeclaredFunction().model_dump())}


def test_the_sample_describes_every_setting(martlet):
    text = " ".join(martlet("config", "create", "-").out.replace("#", " ").split())
    for model in (SystemSettings, DeclaredFunction):
        for name, field in model.model_fields.items():
            assert f" {name}: " in text
            assert " ".join(field.description.split()) in text


def test_the_sample_is_written_to_its_own_file_and_nothing_is_overwritten(martlet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert martlet("config", "create").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["faas_config.yaml"]
    (tmp_path / "faas_config.yaml").write_text("mine")
    result = martlet("config", "create")
    assert result.code == 1
    assert "faas_config.yaml is there already" in result.err
    assert (tmp_path / "faas_config.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("system:\n  lanes: many\n", "system.lanes: "),
        ("system:\n  lane: 1\n", "system.lane: there is no such key; did you mean lanes?"),
        ("functions:\n  hello:\n    memory: lots\n", "functions.hello.memory: 'lots' is not a size"),
        ("system:\n  store: etcd://me:secret@\n", "system.store: write sqlite, or etcd://"),
        ("system: [", "is not YAML"),
    ],
)
def test_a_fault_is_named_by_its_field(martlet, tmp_path, text, complaint):
    (tmp_path / "faas.yaml").write_text(text)
    result = martlet("config", "check", tmp_path / "faas.yaml")
    assert result.code == 2
    assert complaint in result.err


def test_a_file_that_is_not_there_cannot_be_checked(martlet, tmp_path):
    result = martlet("config", "check", tmp_path / "gone.yaml")
    assert result.code == 2
    assert "gone.yaml" in result.err


def test_the_settings_in_force_merge_file_and_environment(martlet, tmp_path, monkeypatch):
    (tmp_path / "faas.yaml").write_text("system:\n  lanes: 3\n  max_body: 1Mi\n")
    monkeypatch.setenv("FAAS_API_PORT", "9000")
    shown = martlet("config", "show", "-c", tmp_path / "faas.yaml")
    system = yaml.safe_load(shown.out)["system"]
    assert (system["lanes"], system["max_body"], system["api_gateway_port"]) == (3, "1Mi", 9000)
    assert martlet("config", "show", "-c", tmp_path / "faas.yaml", "--json").json["system"] == system


def test_the_password_of_the_store_comes_from_the_environment_and_is_not_shown(
    martlet, tmp_path, monkeypatch
):
    file = tmp_path / "faas.yaml"
    file.write_text("system:\n  store: etcd://me@a\n")
    assert martlet("config", "check", file).code == 0
    monkeypatch.setenv("FAAS_STORE_PASSWORD", "p@ss")
    assert load_settings(file).system.store.password == "p@ss"
    shown = martlet("config", "show", "-c", file).out
    assert "store: etcd://me:***@a:2379/martlet\n" in shown
    assert "p@ss" not in martlet("config", "show", "-c", file, "--json").out
    file.write_text("system:\n  store: etcd://a\n")
    refused = martlet("config", "show", "-c", file)
    assert refused.code != 0
    assert "system.store: there is a password and no user" in refused.err


def test_only_what_the_platform_tells_its_own_processes_has_the_password(tmp_path):
    file = tmp_path / "faas.yaml"
    file.write_text("system:\n  store: etcd://me:p%40ss@a\n")
    settings = load_settings(file, environment={})
    assert Settings.model_validate_json(settings.reveal()) == settings
    assert "p%40ss" not in settings.model_dump_json()
    assert "p@ss" not in repr(settings)
