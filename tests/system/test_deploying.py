"""Deploys: atomic, deduplicated, undone by rollback, and never felt by those who invoke."""

import io
import subprocess
import tarfile
import threading
import zipfile

import pytest

from tests.system.conftest import plain_client, until


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_py", ".py"), text)
    return buffer.getvalue()


def test_the_quick_start_of_the_old_platform_works_as_written(platform):
    body = {
        "name": "hello-world",
        "code": 'def handle(request):\n    return {"message": "Hello, World!", "data": request.get_json()}',
        "config": {"execution_mode": "process", "timeout": 30, "memory": "128Mi"},
    }
    assert platform.client.post("/functions", json=body).status_code == 201
    answer = platform.invoke("hello-world", json={"name": "AITest", "test": True})
    assert answer.json() == {"message": "Hello, World!", "data": {"name": "AITest", "test": True}}
    changed = {"code": "def handle(request):\n    return {'result': 'updated'}", "config": {"timeout": 60}}
    view = platform.client.put("/functions/hello-world", json=changed).json()
    assert (view["latest"], view["config"]["timeout"], view["config"]["memory"]) == (2, 60, "128Mi")
    assert platform.invoke("hello-world").json() == {"result": "updated"}
    assert "hello-world" in [f["name"] for f in platform.client.get("/functions").json()]
    assert platform.client.delete("/functions/hello-world").status_code == 204
    assert platform.invoke("hello-world").status_code == 404


def test_the_first_request_after_a_deploy_is_warm(platform):
    for number in (1, 2):
        platform.deploy("warmed", f"def handle(r):\n    return '{number}'\n")
        assert [i["revision"] for i in platform.instances("warmed") if i["state"] != "draining"] == [number]
        answer = platform.invoke("warmed")
        assert (answer.text, "cell;dur" in answer.headers["server-timing"]) == (str(number), False)


def test_a_name_is_taken_once(platform):
    platform.deploy("taken", "def handle(r):\n    return 1\n")
    again = platform.client.post("/functions", json={"name": "taken", "code": "def handle(r): return 2"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_of_several_modules_are_deployed(platform, kind):
    files = {"main.py": "from helpers.words import WORD\ndef run(r):\n    return WORD\n"}
    files |= {"helpers/__init__.py": "", "helpers/words.py": f"WORD = {kind!r}\n"}
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    name = "archive-" + kind.replace(".", "")
    answer = platform.client.post(
        "/functions",
        data={"name": name, "config": '{"handler": "main.run"}'},
        files={"archive": ("code", buffer.getvalue())},
    )
    assert answer.status_code == 201, answer.text
    assert platform.invoke(name).text == kind


def test_code_alone_is_replaced_by_a_raw_archive(platform):
    platform.deploy("raw", "def handle(r):\n    return 'one'\n", timeout=7)
    answer = platform.client.put(
        "/functions/raw/code", content=zipped(handler_py="def handle(r): return 'two'")
    )
    assert answer.status_code == 200, answer.text
    assert (answer.json()["latest"], answer.json()["config"]["timeout"]) == (2, 7)
    assert platform.invoke("raw").text == "two"


def test_an_unchanged_deploy_makes_no_revision(platform):
    platform.deploy("same", "def handle(r):\n    return 1\n")
    view = platform.client.put("/functions/same", json={"code": "def handle(r):\n    return 1\n"}).json()
    assert (view["latest"], view["unchanged"]) == (1, True)


def test_a_function_made_anew_has_nothing_of_the_one_that_was_deleted(platform):
    code = "def handle(r):\n    return '{}'\n"
    for name in ("anew-a", "anew-b", "anew-c", "anew-d"):  # whatever lane is home to it
        platform.deploy(name, code.format("deleted"))
        ask_on_new_connections(platform, name)
        assert platform.client.delete(f"/functions/{name}").status_code == 204
        platform.deploy(name, code.format("one"))
        platform.deploy(name, code.format("two"))
        assert ask_on_new_connections(platform, f"{name}@1") == {"one"}


def ask_on_new_connections(platform, name):
    """Returns the answers that a function gives on both lanes."""
    answers = set()
    for _ in range(8):
        with platform.client_for(platform.key) as client:
            answers.add(client.post(f"/invoke/{name}").text)
    return answers


def test_revisions_are_kept_invoked_and_rolled_back_to(platform):
    for number in (1, 2, 3):
        platform.deploy("versions", f"def handle(r):\n    return '{number}'\n")
    assert [r["number"] for r in platform.client.get("/functions/versions/revisions").json()] == [3, 2, 1]
    assert platform.invoke("versions").text == "3"
    assert platform.invoke("versions@1").text == "1"
    assert platform.client.post("/functions/versions/rollback", json={"revision": 2}).json()["latest"] == 2
    assert platform.invoke("versions").text == platform.invoke("versions@latest").text == "2"
    platform.deploy("versions", "def handle(r):\n    return '4'\n")
    assert platform.invoke("versions").headers["x-faas-revision"] == "4"


def test_an_alias_splits_requests_by_weight(platform):
    for number in (1, 2):
        platform.deploy("split", f"def handle(r):\n    return '{number}'\n")
    put = platform.client.put("/functions/split/aliases/live", json={"weights": {"1": 80, "2": 20}})
    assert put.status_code == 200, put.text
    seen = [platform.invoke("split@live").text for _ in range(200)]
    assert 130 < seen.count("1") < 195
    wrong = platform.client.put("/functions/split/aliases/live", json={"weights": {"1": 80}})
    assert wrong.status_code == 422
    assert platform.client.delete("/functions/split/aliases/live").status_code == 204
    assert platform.invoke("split@live").status_code == 404


def test_a_change_is_seen_by_the_very_next_request_on_every_lane(platform):
    for number in range(1, 11):
        platform.deploy("fresh", f"def handle(r):\n    return '{number}'\n")
        for _ in range(6):
            with plain_client(platform.url, headers={"authorization": "Bearer demo-key"}) as client:
                assert client.post("/invoke/fresh").text == str(number)


def test_updates_under_load_lose_no_request_and_mix_no_revisions(platform):
    code = "import time\nN = {n}\nPIDS = set()\ndef handle(r):\n    time.sleep(0.002)\n    return str(N)\n"
    platform.deploy("hot", code.format(n=1), max_instances=4)
    seen, stop = [], threading.Event()

    def call():
        with plain_client(platform.url, headers={"authorization": "Bearer demo-key"}) as client:
            while not stop.is_set():
                response = client.post("/invoke/hot", timeout=30)
                seen.append((response.status_code, response.text, response.headers.get("x-faas-revision")))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(1, 7):
        platform.deploy("hot", code.format(n=number))
        until(lambda number=number: any(text == str(number) for _, text, _ in seen))
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in seen} == {200}
    assert all(text == revision for _, text, revision in seen)
    assert {text for _, text, _ in seen} == {str(number) for number in range(1, 7)}
    until(lambda: {i["revision"] for i in platform.instances("hot")} == {6}, why="old instances live on")


def test_a_failed_build_says_why_and_changes_nothing(platform):
    platform.deploy("builds", "def handle(r):\n    return 'old'\n")
    change = {"config": {"dependencies": ["no-such-package-anywhere-at-all==99"]}}
    answer = platform.client.put("/functions/builds", json=change)
    assert answer.status_code >= 400
    assert "no-such-package-anywhere-at-all" in answer.text
    assert platform.invoke("builds").text == "old"
    assert platform.client.get("/functions/builds").json()["config"]["dependencies"] == []
    assert platform.client.get("/builds").json()[-1]["state"] == "failed" or any(
        build["state"] == "failed" and build["function"] == "builds"
        for build in platform.client.get("/builds").json()
    )


@pytest.mark.slow
def test_dependencies_are_installed_and_reused(platform):
    code = "import six\ndef handle(r):\n    return six.__version__\n"
    first = platform.deploy("needs", code, dependencies=["six==1.16.0"])
    assert platform.invoke("needs").text == "1.16.0"
    again = platform.deploy("needs-too", code, dependencies=["six==1.16.0"])
    assert platform.invoke("needs-too").text == "1.16.0"
    said = [platform.client.get(f"/builds/{each['build']}/logs").text for each in (first, again)]
    assert ["compiling" in each for each in said] == [True, False], "it was installed again"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with a function in a folder; builds may read it, other than the folder that it is in."""
    repository = tmp_path_factory.mktemp("git") / "birds"
    (repository / "greeter").mkdir(parents=True)
    (repository / "greeter/handler.py").write_text("def handle(r):\n    return 'from git'\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    return repository


@pytest.fixture(scope="module")
def configured(make_platform, repository):
    """A platform with functions in its configuration file, whose builds are shown a repository."""
    platform = make_platform(
        lanes=1, build_folders=[str(repository)], disable_container=True, disable_microvm=True
    )
    (platform.data.parent / "greeter.py").write_text(
        "import os\ndef handle(r):\n    return os.environ['GREETING']\n"
    )
    document = platform.config.read_text()
    platform.config.write_text(
        document + "functions:\n  greeter:\n    path: greeter.py\n    environment: {GREETING: moin}\n"
        "  inline:\n    code: |\n      def handle(r):\n          return 'inline'\n"
    )
    platform.start()
    return platform


def test_functions_of_the_configuration_file_are_there_after_the_start(configured):
    for name, answer in (("greeter", "moin"), ("inline", "inline")):
        until(
            lambda name=name, answer=answer: configured.invoke(name).text == answer,
            why=f"{name}, which is declared, does not answer",
        )


def test_code_is_fetched_from_git_and_its_commit_is_known(configured, repository):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True
    )
    body = {"name": "fetched", "git": {"url": f"file://{repository}", "ref": "main", "path": "greeter"}}
    made = configured.client.post("/functions", json=body)
    assert made.status_code == 201, made.text
    assert configured.invoke("fetched").text == "from git"
    build = configured.client.get(f"/builds/{made.json()['build']}").json()
    assert build["commit"] == head.stdout.strip()
    own = {"git": {"url": f"file://{configured.data}"}}
    refused = configured.client.put("/functions/fetched", json=own)
    assert refused.json()["code"] == "build_failed", "the platform's own files are not there to be fetched"
