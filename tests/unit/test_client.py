"""The client: what it sends, what it makes of answers, and that both kinds of it are one."""

import inspect
import io
import json
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from martlet.client import ApiError, AsyncClient, Client, ClientError, Unreachable
from martlet.client.address import find_address
from martlet.client.api import Api
from martlet.errors import BuildFailed, FunctionError, FunctionNotFound, MartletError, NotFound

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8000"
Handler = Callable[[httpx2.Request], httpx2.Response]


def answering(handler: Handler) -> Client:
    return Client(URL, "a-key", transport=httpx2.MockTransport(handler))


def problem(status: int, **members: Any) -> httpx2.Response:
    headers = {"content-type": "application/problem+json", "x-request-id": "r1"}
    return httpx2.Response(status, headers=headers, json={"request_id": "r1", **members})


def events(*documents: Any) -> httpx2.Response:
    text = "".join(f"data: {json.dumps(document)}\n\n" for document in documents)
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=text)


class Platform:
    """Answers a deploy: remembers the requests, and knows a function once it was uploaded."""

    def __init__(self, exists: bool = False, state: str = "ready") -> None:
        self.exists, self.state = exists, state
        self.seen: list[tuple[str, str]] = []
        self.upload = b""
        self.upload_type = ""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append((request.method, request.url.raw_path.decode()))
        match request.method, request.url.path:
            case "GET", "/functions/hello":
                known = httpx2.Response(200, json={"name": "hello", "latest": 1})
                return known if self.exists else problem(404, code="function_not_found")
            case (("POST" | "PUT"), _):
                self.exists, self.upload = True, request.read()
                self.upload_type = request.headers["content-type"]
                return httpx2.Response(202, json={"id": "b1", "state": "packing"})
            case "GET", "/builds/b1/logs":
                return events({"message": "installing"}, {"message": "loading"})
            case "GET", "/builds/b1":
                return httpx2.Response(
                    200, json={"id": "b1", "state": self.state, "error": "no module named x"}
                )
        raise AssertionError(request.url)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "handler.py").write_text("def handle(request):\n    return 'hello'\n")
    (folder / "words.txt").write_text("hello\n" * 10_000)
    (folder / "notes.md").write_text("not for the platform")
    (folder / ".martletignore").write_text("*.md\n")
    return folder


def test_sends_the_key() -> None:
    seen: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        return httpx2.Response(200, json=[])

    with answering(handler) as client:
        assert client.functions() == []
    assert seen == ["Bearer a-key"]


def test_a_problem_document_becomes_an_error_with_all_its_members() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        answer = problem(422, code="invalid", detail="memory: too much", field="config.memory")
        answer.headers["retry-after"] = "3"
        return answer

    with answering(handler) as client, pytest.raises(ApiError, match="memory: too much") as caught:
        client.create("hello", "code")
    error = caught.value
    assert (error.status, error.code, error.field, error.request_id, error.retry_after) == (
        422,
        "invalid",
        "config.memory",
        "r1",
        3.0,
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [("function_not_found", FunctionNotFound), ("function_error", FunctionError), ("newer", MartletError)],
)
def test_the_kind_of_an_error_is_its_place_in_the_tree(code: str, kind: type[MartletError]) -> None:
    error = ApiError(500, {"code": code}, request_id=None, retry_after=None)
    assert error.kind is kind


def test_an_error_that_is_no_problem_document_still_says_what_happened() -> None:
    with (
        answering(lambda request: httpx2.Response(502, text="<html>")) as client,
        pytest.raises(ApiError, match="answered 502 Bad Gateway"),
    ):
        client.stats()


def test_what_a_function_answers_is_no_error_whatever_its_status() -> None:
    answers: Iterator[httpx2.Response] = iter(
        [
            httpx2.Response(404, json={"mine": True}),
            httpx2.Response(
                409,
                headers={"content-type": "application/problem+json", "x-request-id": "r1"},
                json={"code": "own"},
            ),
        ]
    )
    with answering(lambda request: next(answers)) as client:
        assert client.invoke("hello").json() == {"mine": True}
        assert client.invoke("hello").json() == {"code": "own"}


def test_an_error_of_the_platform_during_an_invocation_is_raised() -> None:
    with (
        answering(lambda request: problem(500, code="function_error", detail="ValueError: no")) as client,
        pytest.raises(ApiError, match="ValueError: no") as caught,
    ):
        client.invoke("hello")
    assert issubclass(caught.value.kind, FunctionError)
    assert not issubclass(caught.value.kind, NotFound)


def test_an_invocation_carries_method_path_query_headers_and_body() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, text="done")

    with answering(handler) as client:
        client.invoke("hello@3", b"abc", method="PUT", path="/a/b", query={"q": "1 2"}, headers={"x-a": "b"})
        client.invoke("hello", json={"n": 1})
    first, second = seen
    assert first.method == "PUT"
    assert first.url.raw_path == b"/invoke/hello@3/a/b?q=1+2"
    assert first.headers["x-a"] == "b"
    assert first.read() == b"abc"
    assert (second.method, second.url.raw_path, second.read()) == ("POST", b"/invoke/hello", b'{"n":1}')


def test_a_name_cannot_break_out_of_its_place_in_the_path() -> None:
    seen: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.raw_path)
        return problem(404, code="function_not_found")

    with answering(handler) as client, pytest.raises(ApiError):
        client.function("a/../../keys?x=1")
    assert seen == [b"/functions/a%2F..%2F..%2Fkeys%3Fx%3D1"]


def test_a_streamed_answer_can_be_read_piece_by_piece() -> None:
    with (
        answering(lambda request: httpx2.Response(200, content=iter([b"one", b"two"]))) as client,
        client.stream("hello") as response,
    ):
        assert list(response.iter_raw()) == [b"one", b"two"]


def test_following_logs_yields_each_line_as_it_comes() -> None:
    seen: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.raw_path)
        return events({"message": "a"}, {"message": "b"})

    with answering(handler) as client:
        assert [line["message"] for line in client.follow_logs("hello", tail=5)] == ["a", "b"]
    assert seen == [b"/functions/hello/logs?tail=5&follow=true"]


MISSING_EVENT = 'event: missing\ndata: {"missing": ["m2"]}\n\ndata: {"message": "a"}\n\n'


def lacking(request: httpx2.Request) -> httpx2.Response:
    if request.url.path.endswith("/logs"):
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=MISSING_EVENT)
    return httpx2.Response(200, headers={"x-faas-missing": "m2, m3"}, json=[])


async def test_machines_that_an_answer_lacks_are_told_apart_from_it() -> None:
    told: list[list[str]] = []
    transport = httpx2.MockTransport(lacking)
    with Client(URL, "k", transport=transport, on_missing=told.append) as client:
        assert client.instances() == []
        assert [line["message"] for line in client.follow_logs("hello")] == ["a"]
        client.invoke("hello")  # what a function says is its own
    assert told == [["m2", "m3"], ["m2"]]
    async with AsyncClient(URL, "k", transport=transport, on_missing=told.append) as client:
        assert await client.instances() == []
        assert [line["message"] async for line in client.follow_logs("hello")] == ["a"]
    assert told[2:] == told[:2]
    async with AsyncClient(URL, "k", transport=transport) as client:
        assert [line["message"] async for line in client.follow_logs("hello")] == ["a"]


def test_deploying_a_folder_that_is_new_creates_the_function(code: Path) -> None:
    platform, sent, lines = Platform(), list[tuple[int, int]](), list[str]()
    with answering(platform) as client:
        function = client.deploy(
            "hello",
            code,
            {"timeout": 5},
            on_upload=lambda done, total: sent.append((done, total)),
            on_line=lambda line: lines.append(line["message"]),
        )
    assert function == {"name": "hello", "latest": 1}
    assert ("POST", "/functions?wait=false") in platform.seen
    assert lines == ["installing", "loading"]
    assert sent[-1][0] == sent[-1][1] > 0
    assert b'name="name"\r\n\r\nhello\r\n' in platform.upload
    assert b'{"timeout": 5}' in platform.upload


def test_a_folder_is_sent_as_an_archive_without_what_is_ignored(code: Path) -> None:
    platform = Platform(exists=True)
    with answering(platform) as client:
        client.deploy("hello", code)
    assert ("PUT", "/functions/hello?wait=false") in platform.seen
    boundary = platform.upload_type.partition("boundary=")[2].encode()
    (part,) = [part for part in platform.upload.split(b"--" + boundary) if b'name="archive"' in part]
    archive = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(tar.getnames()) == ["handler.py", "words.txt"]


def test_one_file_is_sent_as_code(code: Path) -> None:
    platform = Platform(exists=True)
    with answering(platform) as client:
        client.deploy("hello", code / "handler.py", {"memory": "64Mi"})
    assert json.loads(platform.upload) == {
        "code": "def handle(request):\n    return 'hello'\n",
        "config": {"memory": "64Mi"},
    }


def test_a_build_that_fails_is_an_error_with_its_reason(code: Path) -> None:
    with (
        answering(Platform(state="failed")) as client,
        pytest.raises(ApiError, match="no module named x") as caught,
    ):
        client.deploy("hello", code)
    assert caught.value.kind is BuildFailed
    assert caught.value.document["build"]["id"] == "b1"


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with answering(Platform()) as client:
        with pytest.raises(ClientError, match=r"cannot read .*gone\.py: No such file"):
            client.deploy("hello", tmp_path / "gone.py")
        with pytest.raises(ClientError, match=r"cannot read .*gone\.zip: No such file"):
            client.deploy("hello", tmp_path / "gone.zip")


def test_no_deploy_is_begun_with_a_key_that_is_refused(code: Path) -> None:
    seen: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.method)
        return problem(401, code="unauthenticated")

    with answering(handler) as client, pytest.raises(ApiError):
        client.deploy("hello", code)
    assert seen == ["GET"]


def test_a_refused_connection_says_how_to_start_the_platform() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(url, "k") as client,
            pytest.raises(Unreachable, match=rf"nothing answers at {url}: start .*serve"),
        ):
            client.health()


def test_what_speaks_no_tls_is_told_from_nothing_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            with plain.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = threading.Thread(target=answer)
        server.start()
        url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        with Client(url, "k") as client, pytest.raises(Unreachable, match=rf"^no TLS with {url}.*SSL"):
            client.health()
        server.join()


def test_what_is_not_the_platform_is_told_from_it() -> None:
    with (
        answering(lambda request: httpx2.Response(200, text="<html>")) as client,
        pytest.raises(Unreachable, match=r"what answers at http://127.0.0.1:8000 is not Martlet"),
    ):
        client.functions()


@pytest.mark.parametrize("header", [{"x-a": "é"}, {"x-a": "a\nb: c"}, {"é": "a"}])
def test_a_header_that_cannot_be_one_is_refused(header: dict[str, str]) -> None:
    with (
        answering(lambda request: httpx2.Response(200)) as client,
        pytest.raises(ClientError, match="has characters that no header may have"),
    ):
        client.invoke("hello", headers=header)


@pytest.mark.parametrize("key", ["é", "a\nb", "a b"])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ClientError, match="the key in MARTLET_KEY has characters that no key has") as caught:
        find_address(environment={"MARTLET_KEY": key})
    assert key not in str(caught.value)


def test_a_connection_that_breaks_is_unreachable_and_not_a_traceback() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("peer closed")

    with answering(handler) as client, pytest.raises(Unreachable, match="broke"):
        client.health()


async def test_the_async_client_awaits_streams_and_follows(code: Path) -> None:
    platform = Platform()

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/functions/hello/logs":
            return events({"message": "a"})
        if request.url.path == "/invoke/hello":
            return httpx2.Response(200, text="streamed")
        return platform(request)

    lines: list[str] = []
    async with AsyncClient(URL, "k", transport=httpx2.MockTransport(handler)) as client:
        deployed = await client.deploy("hello", code, on_line=lambda line: lines.append(line["message"]))
        assert deployed["latest"] == 1
        assert [line["message"] async for line in client.follow_logs("hello")] == ["a"]
        async with client.stream("hello") as response:
            assert b"".join([piece async for piece in response.aiter_bytes()]) == b"streamed"
    assert lines == ["installing", "loading"]


async def test_the_async_client_raises_the_same_errors(code: Path) -> None:
    async with AsyncClient(URL, "k", transport=httpx2.MockTransport(Platform(state="failed"))) as client:
        with pytest.raises(ApiError, match="no module named x"):
            await client.deploy("hello", code)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with AsyncClient(f"http://127.0.0.1:{unused.getsockname()[1]}", "k") as client:
            with pytest.raises(Unreachable):
                await client.health()


def test_every_method_is_documented() -> None:
    names = [name for name in vars(Api) if not name.startswith("_")]
    with answering(lambda request: httpx2.Response(200)) as client:
        for name in names:
            assert inspect.getdoc(getattr(client, name)), name


def test_the_environment_says_where_the_platform_is() -> None:
    address = find_address(environment={"MARTLET_URL": "https://faas.example/", "MARTLET_KEY": "secret"})
    assert (address.url, address.key) == ("https://faas.example", "secret")


def test_on_this_machine_the_key_comes_from_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("martlet.client.address.default_storage_path", lambda: tmp_path)
    assert find_address(environment={}).key == "admin-key"
    (tmp_path / "admin.key").write_text("local-secret\n")
    address = find_address(environment={})
    assert (address.url, address.key) == ("http://127.0.0.1:8000", "local-secret")
    assert str(tmp_path / "admin.key") in address.key_source


def test_the_key_of_this_machine_is_never_sent_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("martlet.client.address.default_storage_path", lambda: tmp_path)
    (tmp_path / "admin.key").write_text("local-secret\n")
    with pytest.raises(ClientError, match="needs a key: set MARTLET_KEY"):
        find_address("http://192.0.2.1:8000", environment={})


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="is not the address of a platform"):
        find_address(url, environment={})
