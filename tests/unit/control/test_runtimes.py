"""Which runtime a function gets that names none, and what this machine has of them."""

from pathlib import Path

import pytest

from tests.unit.control.conftest import HANDLER, Platform, assert_problem, running, zipped

pytestmark = pytest.mark.anyio

MISSING = """
name = "parrot"
title = "Parrot"
version_parts = 1
announced_by = ["*.parrot"]
rank = 1
[toolchain]
programs = ["parrot-that-nobody-has"]
version = ["{program}", "--version"]
debian = ["parrot"]
[start]
command = ["{program}"]
"""
SILENT = """
name = "silent"
title = "Silent"
announced_by = ["silent.txt"]
[start]
command = ["/function/function"]
"""


@pytest.fixture
async def platform(tmp_path: Path):
    """A platform whose operator has runtimes of their own."""
    for name, text in {"parrot": MISSING, "silent": SILENT}.items():
        (tmp_path / "runtimes" / name).mkdir(parents=True)
        (tmp_path / "runtimes" / name / "runtime.toml").write_text(text)
    async with running(Platform(tmp_path, runtimes_path=tmp_path / "runtimes")) as platform:
        yield platform


async def upload(platform: Platform, config: str, **files: str):
    archive = ("a.zip", zipped({name.replace("_", "."): text for name, text in files.items()}))
    form = {"name": "uploaded", "config": config}
    return await platform.client.post("/functions", data=form, files={"archive": archive})


async def listed(platform: Platform, name: str):
    (found,) = [each for each in (await platform.client.get("/runtimes")).json() if name == each["name"]]
    return found


async def test_runtimes_are_listed_with_the_names_they_answer_to(platform):
    runtime = await listed(platform, platform.catalogue.resolve("python").name)
    assert "python" in runtime["names"]
    assert (runtime["runs"], runtime["builds"], runtime["inline"]) == (True, True, True)
    assert (runtime["missing"], runtime["remedy"]) == (None, None)


async def test_what_is_missing_is_listed_with_the_reason_and_what_to_install(platform):
    runtime = await listed(platform, "parrot")
    assert (runtime["runs"], runtime["builds"], runtime["names"]) == (False, False, [])
    assert runtime["missing"].startswith("there is no parrot-that-nobody-has in PATH or ")
    assert runtime["remedy"] == "apt-get install parrot"


async def test_a_runtime_that_is_dropped_in_while_the_platform_runs_is_listed(platform, tmp_path):
    (tmp_path / "runtimes/late").mkdir()
    (tmp_path / "runtimes/late/runtime.toml").write_text(SILENT.replace("silent", "late"))
    assert (await listed(platform, "late"))["names"] == ["late"]


@pytest.mark.parametrize("config", ["{}", '{"image": null, "memory": "64Mi"}'])
async def test_the_runtime_of_a_new_function_is_that_which_its_files_announce(platform, config):
    made = await upload(platform, config, handler_py=HANDLER)
    assert made.json()["config"]["runtime"] == platform.catalogue.resolve("python").name
    await platform.client.delete("/functions/uploaded")
    problem = assert_problem(await upload(platform, config, nothing="x"), 422, "invalid")
    assert problem["field"] == "config.runtime"
    assert "*.py" in problem["detail"]
    assert "silent.txt" in problem["detail"]


async def test_a_runtime_that_is_named_is_not_replaced_by_what_the_files_announce(platform):
    made = await upload(platform, '{"runtime": "python"}', handler_py=HANDLER, x_parrot="")
    assert made.status_code == 201


@pytest.mark.parametrize("config", ["{}", '{"runtime": "parrot"}', '{"runtime": "parrot3"}'])
async def test_a_runtime_whose_toolchain_is_missing_is_refused_with_what_to_install(platform, config):
    problem = assert_problem(await upload(platform, config, handler_parrot=""), 422, "invalid")
    assert problem["field"] == "config.runtime"
    assert problem["detail"].endswith("to install it: apt-get install parrot")


@pytest.mark.parametrize("body", [{}, {"file": "hello.py"}, {"file": "README"}])
async def test_inline_code_that_names_no_runtime_is_python(platform, body):
    answer = await platform.client.post("/functions", json={"name": "x", "code": HANDLER, **body})
    assert answer.json()["config"]["runtime"] == platform.catalogue.resolve("python").name


async def test_the_name_of_the_file_of_inline_code_says_its_runtime(platform):
    body = {"name": "x", "code": HANDLER, "file": "hello.parrot"}
    assert (
        "parrot"
        in assert_problem(await platform.client.post("/functions", json=body), 422, "invalid")["detail"]
    )
    body["config"] = {"runtime": "python"}
    assert (await platform.client.post("/functions", json=body)).status_code == 201


async def test_a_file_with_the_suffix_of_no_runtime_is_not_taken_for_python(platform):
    body = {"name": "x", "code": HANDLER, "file": "main.swift"}
    problem = assert_problem(await platform.client.post("/functions", json=body), 422, "invalid")
    assert problem["field"] == "config.runtime"
    assert problem["detail"].startswith("the name 'main.swift' does not say which runtime it is for (*.")
    assert " *.py, " in problem["detail"]
    assert "requirements.txt" not in problem["detail"]
    body["config"] = {"runtime": "python"}
    assert (await platform.client.post("/functions", json=body)).status_code == 201


async def test_a_runtime_without_inline_code_refuses_it(platform):
    body = {"name": "x", "code": HANDLER, "config": {"runtime": "silent"}}
    problem = assert_problem(await platform.client.post("/functions", json=body), 422, "invalid")
    assert problem["field"] == "code"
    assert "its runtime takes no inline code; send a folder or an archive" in problem["detail"]
