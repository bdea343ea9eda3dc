"""What is said about a function, or in place of it, is data: it is refused with a reason, or it is harmless. Further
refusals, field by field, are in test_failures.py (tests/system) and test_requirements.py (tests/unit/builder)."""

import json

import pytest

from tests.security.conftest import bounded_memory, undisturbed

CODE = "import os\ndef handle(request):\n    return dict(os.environ)\n"


def make(platform, **change):
    """Tries to make a function."""
    body = {"name": "configured", "code": CODE, "config": {}} | change
    return platform.client.post("/functions", json=body)


def assert_refused(platform, response, *statuses):
    assert response.status_code in statuses, response.text
    assert response.json()["detail"]
    assert "configured" not in [function["name"] for function in platform.client.get("/functions").json()]


@pytest.mark.parametrize(
    "environment",
    [
        {"LD_PRELOAD": "/tmp/evil.so"},
        {"LD_LIBRARY_PATH": "/tmp"},
        {"LD_AUDIT": "/tmp/evil.so"},
        {"PYTHONPATH": "/tmp"},
        {"PYTHONSTARTUP": "/tmp/evil.py"},
        {"PYTHONHOME": "/tmp"},
        {"PYTHONINSPECT": "1"},
        {"GCONV_PATH": "/tmp"},
        {"GLIBC_TUNABLES": "x"},
        {"MARTLET_ANYTHING": "1"},
        {"A\0B": "1"},
        {"A\nB": "1"},
        {"A=B": "1"},
        {"": "1"},
        {"A B": "1"},
        {"Ä": "1"},
        {"A": "x\0y"},
        {"A": "x" * 100_000},
        {f"A{number}": "x" * 100 for number in range(1000)},
        {"A": ["x"]},
        {"A": {"B": "x"}},
    ],
)
def test_variables_that_would_steer_the_runtime_are_refused(platform, environment):
    assert_refused(platform, make(platform, config={"environment": environment}), 400, 422)


def test_the_value_of_a_variable_is_nothing_but_its_value(platform):
    values = {
        "LINES": "a\nLD_PRELOAD=/tmp/evil.so\r\nB=c",
        "SPACE": " ",
        "SHELL_TRICK": "$(id)`id`;&|",
        "EMPTY": "",
    }
    platform.deploy("variables", CODE, environment=values)
    found = platform.invoke("variables").json()
    assert {name: found[name] for name in values} == values
    assert not [name for name in found if name.startswith("LD_") or name == "B"]
    platform.client.delete("/functions/variables")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../x",
        "a/b",
        "a%2fb",
        "a\\b",
        "a\n",
        "a\0",
        "A",
        "\N{FULLWIDTH LATIN SMALL LETTER A}",
        "-a",
        "a-",
        "a" * 64,
        "a b",
        "a@1",
        "a.b",
        "",
        "ä",
    ],
)
def test_names_are_plain(platform, name):
    assert make(platform, name=name).status_code == 422
    alias = {"weights": {"1": 100}}
    path = (
        name.replace("/", "%2f")
        .replace("\\", "%5c")
        .replace("\n", "%0a")
        .replace("\0", "%00")
        .replace(" ", "%20")
    )
    answer = platform.client.put(f"/functions/neighbour/aliases/{path}", json=alias)
    assert answer.status_code in (400, 403, 404, 405, 422), answer.text
    assert [f for f in platform.client.get("/functions").json() if f["name"] == name] == []


@pytest.mark.parametrize(
    "handler",
    [
        "../x.handle",
        "handle\n",
        "handle()",
        "__import__('os').system",
        "a b",
        "",
        "x;y",
        "a..b:",
        "ä",
        ".a",
    ],
)
def test_a_handler_is_a_name(platform, handler):
    assert_refused(platform, make(platform, config={"handler": handler}), 422)


@pytest.mark.parametrize(
    "handler",
    [
        "a/b.handle",
        "@x",
        "x/y:z",
        "os.system",
        "os._exit",
        "builtins.eval",
        "builtins.exec",
        "sys.exit",
        "a.b.c",
        "martlet.cli.main",
    ],
)
def test_a_handler_that_names_something_else_does_no_harm(platform, handler):
    assert make(platform, config={"handler": handler}).status_code in (201, 502)
    if platform.client.get("/functions/configured").status_code == 200:
        assert platform.invoke("configured", content=b"id").status_code >= 500
    platform.client.delete("/functions/configured")


@pytest.mark.parametrize(
    "dependency",
    [
        "--index-url=http://localhost/",
        "-r /etc/passwd",
        "-e .",
        ".",
        "/etc",
        "../x",
        "file:///etc/passwd",
        "x @ file:///etc/passwd",
        "git+file:///etc",
        "x\n--index-url=http://localhost/",
        "x; import os",
        "x\0",
        "",
    ],
)
def test_a_dependency_is_a_package_and_no_option_path_or_address(platform, dependency):
    assert_refused(platform, make(platform, config={"dependencies": [dependency]}), 400, 422)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"name":' * 50_000,
        b'{"name": "configured", "code": "", "config": {"environment": %b}}' % (b"[" * 1000 + b"]" * 1000),
        b'{"name": "configured", "code": "", "config": {"environment": [%b]}}' % b",".join([b"[]"] * 600_000),
        b'{"name": "configured", "code": "", "config": {%b}}'
        % b",".join(b'"k%d": 1' % n for n in range(100_000)),
        b'{"name": "configured", "code": "", "config": {"timeout": %b}}' % (b"9" * 100_000),
        b'{"name": "configured", "code": "", "config": {"timeout": 1e999}}',
        b'{"name": "configured", "code": "", "config": {"timeout": NaN}}',
        b'{"name": "configured", "code": "", "config": {"memory": "9999999999999Gi"}}',
        b'{"name": "configured", "code": "", "config": {"max_instances": 1e300}}',
        b'{"name": "configured", "code": "\\ud800"}',
        b'{"name": "configured", "code": "\xff"}',
        b'{"name": "configured", "name": "other", "code": 1}',
        b"name: &a [*a, *a]\ncode: *a",
        b"\x1f\x8b\x08\0" + bytes(1000),
        "{}".encode("utf-16"),
        b"null",
        b"[]",
        b"",
    ],
)
def test_documents_that_are_bombs_or_none_are_refused(platform, content):
    with undisturbed(platform), bounded_memory(platform, 128 * 1024 * 1024):
        for method, path in (
            ("POST", "/functions"),
            ("PUT", "/functions/neighbour/aliases/live"),
            ("POST", "/keys"),
        ):
            client = platform.admin if path == "/keys" else platform.client
            answer = client.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            assert answer.status_code in (400, 413, 422), answer.text
    assert "configured" not in [function["name"] for function in platform.client.get("/functions").json()]


def test_a_document_is_not_as_large_as_an_archive_may_be(platform):
    large = json.dumps({"name": "configured", "code": "x" * 20_000_000})
    with undisturbed(platform), bounded_memory(platform):
        for method, path in (
            ("POST", "/functions"),
            ("PUT", "/functions/neighbour/aliases/live"),
            ("POST", "/keys"),
        ):
            client = platform.admin if path == "/keys" else platform.client
            answer = client.request(method, path, content=large, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"--b",
        b"--b\r\n\r\n",
        b"--b\r\nx: " + b"a" * 5_000_000 + b"\r\n\r\n--b--\r\n",
        b"--b\r\n" + b"x: y\r\n" * 500_000 + b"\r\n--b--\r\n",
        b"".join(b'--b\r\ncontent-disposition: form-data; name="%d"\r\n\r\nx\r\n' % n for n in range(10_000))
        + b"--b--\r\n",
        b'--b\r\ncontent-disposition: form-data; name="config"\r\n\r\n' + b"[" * 900_000 + b"\r\n--b--\r\n",
        b'--b\r\ncontent-disposition: form-data; name="config"\r\n\r\n' + b"x" * 5_000_000 + b"\r\n--b--\r\n",
        b'--b\r\ncontent-disposition: form-data; name="archive"; filename="../../x"\r\n\r\nx\r\n--b--\r\n',
    ],
)
def test_forms_that_are_bombs_or_none_are_refused(platform, form):
    with undisturbed(platform), bounded_memory(platform):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = platform.client.post("/functions", content=form, headers=headers)
    assert answer.status_code in (400, 413, 422), answer.text
