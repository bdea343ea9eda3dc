"""``martlet init``."""

import ast

import pytest

from martlet.cli.init import TEMPLATES, Template
from martlet.cli.manifest import read_manifest


@pytest.mark.parametrize("template", list(Template))
def test_a_template_becomes_a_function_that_can_be_deployed(martlet, tmp_path, template):
    folder = tmp_path / "My Function"
    result = martlet("init", folder, "--template", template)
    assert result.code == 0
    assert "martlet deploy" in result.err
    manifest = read_manifest(folder)
    assert manifest.name == "my-function"
    module = ast.parse((folder / "handler.py").read_text())
    defined = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert manifest.handler in defined


def test_every_template_is_offered():
    assert {folder.name for folder in TEMPLATES.iterdir()} == {template.value for template in Template}


def test_a_name_may_be_given(martlet, tmp_path):
    assert martlet("init", tmp_path / "x", "--name", "shop").code == 0
    assert read_manifest(tmp_path / "x").name == "shop"
    assert martlet("init", tmp_path / "y", "--name", "No Good").code == 2
    assert not (tmp_path / "y").exists()


def test_nothing_is_overwritten(martlet, tmp_path):
    (tmp_path / "martlet.yaml").write_text("name: mine\n")
    result = martlet("init", tmp_path)
    assert result.code == 1
    assert "martlet.yaml is there already" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["martlet.yaml"]
    assert (tmp_path / "martlet.yaml").read_text() == "name: mine\n"
