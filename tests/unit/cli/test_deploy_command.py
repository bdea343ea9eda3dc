"""``martlet deploy`` and ``martlet.yaml``."""

import inspect

import pytest
from fake_platform import FUNCTION, Answer, events, problem

from martlet.cli.deploy import deploy
from martlet.cli.manifest import name_of
from martlet.model import FunctionConfig

BUILD = {"id": "b1", "function": "greeter", "state": "ready", "revision": 2, "error": None}
NOT_FOUND = problem(404, "function_not_found", "there is no function 'greeter'")


@pytest.fixture
def platform(platform):
    platform.answer("GET", "/functions/greeter", NOT_FOUND, FUNCTION)
    platform.answer("POST", "/functions", Answer(BUILD, 202))
    platform.answer("PUT", "/functions/greeter", Answer(BUILD, 202))
    platform.answer("GET", "/builds/b1", BUILD)
    platform.answer("GET", "/builds/b1/logs", events({"message": "resolving"}, {"message": "loaded in 3 ms"}))
    return platform


def test_a_folder_is_deployed_and_its_address_printed(martlet, platform, folder):
    result = martlet("deploy", folder)
    assert result.code == 0
    assert result.out == f"{platform.url}/invoke/greeter\n"
    assert "resolving" in result.err
    assert "greeter@2" in result.err
    assert "martlet invoke greeter" in result.err
    (upload,) = platform.requests("POST")
    assert upload.path == "/functions?wait=false"
    assert b'name="archive"' in upload.body


def test_one_file_is_deployed_under_its_own_name(martlet, platform, tmp_path):
    (tmp_path / "greeter.py").write_text("def handle(request):\n    return 1\n")
    result = martlet("deploy", tmp_path / "greeter.py", "--json")
    assert result.json == FUNCTION
    (upload,) = platform.requests("POST")
    assert upload.json == {
        "name": "greeter",
        "file": "greeter.py",
        "code": "def handle(request):\n    return 1\n",
        "config": {},
    }


def test_code_in_git_is_for_the_platform_to_fetch(martlet, platform):
    address = "https://git.example/team/birds.git#main:functions/greeter"
    assert martlet("deploy", "--git", address, "--memory", "64Mi").code == 0
    (sent,) = platform.requests("POST")
    where = {"url": "https://git.example/team/birds.git", "ref": "main", "path": "functions/greeter"}
    assert sent.json == {"name": "greeter", "git": where, "config": {"memory": "64Mi"}}


def test_an_image_needs_no_code_and_gives_its_name(martlet, platform):
    assert martlet("deploy", "--image", "greeter", "--execution-mode", "container").code == 0
    (sent,) = platform.requests("POST")
    assert sent.json == {"name": "greeter", "config": {"image": "greeter", "execution_mode": "container"}}


def test_code_is_sent_along_with_an_image_where_it_is_named(martlet, platform, folder):
    assert martlet("deploy", folder, "--image", "shop", "--name", "greeter").code == 0
    (upload,) = platform.requests("POST")
    assert b'name="archive"' in upload.body


def test_options_win_over_the_manifest(martlet, platform, folder):
    (folder / "martlet.yaml").write_text("name: greeter\nmemory: 64Mi\ntimeout: 5\nenvironment:\n  A: 1\n")
    words = ["--timeout", "9", "--env", "B=two=2", "--dependency", "a==1", "--dependency", "b", "--public"]
    assert martlet("deploy", folder / "handler.py", *words).code == 0
    (upload,) = platform.requests("POST")
    assert upload.json["name"] == "greeter"
    assert (
        upload.json["config"].items()
        >= {
            "memory": "64Mi",
            "timeout": 9.0,
            "environment": {"B": "two=2"},
            "dependencies": ["a==1", "b"],
            "public": True,
        }.items()
    )


def test_a_manifest_is_all_there_is_to_say(martlet, platform, folder):
    (folder / "martlet.yaml").write_text("name: greeter\nmemory: 64Mi\n")
    assert martlet("deploy", folder / "handler.py").code == 0
    config = platform.requests("POST")[0].json["config"]
    assert (config["memory"], config["max_instances"], config["environment"]) == ("64Mi", 10, {})
    assert config.keys() == FunctionConfig.model_fields.keys() - {"execution_mode", "network", "runtime"}


def test_without_a_manifest_only_what_is_given_changes(martlet, platform, folder):
    assert martlet("deploy", folder / "handler.py", "--memory", "64Mi").code == 0
    assert platform.requests("POST")[0].json["config"] == {"memory": "64Mi"}


def test_a_function_that_is_there_is_updated(martlet, platform, folder):
    platform.answer("GET", "/functions/greeter", FUNCTION)
    assert martlet("deploy", folder).code == 0
    assert [each.path for each in platform.requests("PUT")] == ["/functions/greeter?wait=false"]


def test_a_build_that_fails_shows_its_log_and_why(martlet, platform, folder):
    platform.answer("GET", "/builds/b1", {**BUILD, "state": "failed", "error": "SyntaxError: invalid syntax"})
    result = martlet("deploy", folder)
    assert result.code == 5
    assert "resolving" in result.err
    assert "martlet: SyntaxError: invalid syntax" in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("memory: lots\n", "memory: 'lots' is not a size"),
        ("memmory: 64Mi\n", "memmory: there is no such key; did you mean memory?"),
        ("environment:\n  LD_PRELOAD: x\n", "environment: 'LD_PRELOAD' is reserved"),
        ("name: Not A Name\n", "name: "),
        ("a: [", "is not YAML"),
        ("- a\n", "must hold a table"),
    ],
)
def test_a_fault_in_the_manifest_names_the_file_and_the_field(martlet, platform, folder, manifest, complaint):
    (folder / "martlet.yaml").write_text(manifest)
    result = martlet("deploy", folder)
    assert result.code == 2
    assert "martlet.yaml" in result.err
    assert complaint in result.err
    assert platform.seen == []


def test_a_fault_in_an_option_names_the_field(martlet, platform, folder):
    result = martlet("deploy", folder, "--memory", "1")
    assert result.code == 2
    assert "the options: memory:" in result.err
    assert martlet("deploy", folder, "--env", "novalue").code == 2


def test_what_is_not_there_cannot_be_deployed(martlet, platform, tmp_path):
    result = martlet("deploy", tmp_path / "gone")
    assert result.code == 2
    assert "gone" in result.err


def test_a_folder_whose_name_cannot_be_a_function_s_asks_for_one(martlet, platform, tmp_path):
    (tmp_path / "___").mkdir()
    result = martlet("deploy", tmp_path / "___")
    assert result.code == 2
    assert "--name" in result.err


def test_names_are_made_of_folders_files_and_archives(martlet, platform, tmp_path):
    (tmp_path / "My Shop").mkdir()
    assert name_of(tmp_path / "My Shop") == "my-shop"
    (tmp_path / "My Shop" / "handler.py").touch()
    assert name_of(tmp_path / "My Shop" / "handler.py") == "my-shop"
    for file in ("thumb_nails.py", "thumb-nails.tar.gz", "Thumb.Nails.zip"):
        (tmp_path / file).touch()
        assert name_of(tmp_path / file) == "thumb-nails"


def test_every_key_of_the_configuration_has_an_option():
    options = set(inspect.signature(deploy).parameters) - {"context", "source", "name", "git", "as_json"}
    renamed = {"dependency": "dependencies", "env": "environment"}
    assert {renamed.get(option, option) for option in options} == set(FunctionConfig.model_fields)


def test_no_bar_is_drawn_and_no_line_broken_where_stderr_is_no_terminal(martlet, platform, folder):
    platform.answer("GET", "/builds/b1/logs", events({"message": "long " * 100}))
    result = martlet("deploy", folder)
    assert "long " * 100 in result.err
    assert "\x1b[" not in result.err
    assert "sending" not in result.err


def test_a_bar_is_drawn_on_a_terminal(martlet, platform, folder, monkeypatch):
    import rich.console

    from martlet.cli import progress

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    original = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **options: original(**options, force_terminal=True))
    result = martlet("deploy", folder)
    assert "greeter" in result.err
    assert "\x1b[" in result.err
    assert "loaded in 3 ms" in result.err
