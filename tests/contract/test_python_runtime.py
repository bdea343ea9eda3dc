"""The instance contract, as the Python runtime keeps it: one process from its first byte to its end."""

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import pytest

from tests.contract.python_shim import SECONDS, Shim, Zygote, until

HELLO = "def handle(request):\n    return {'hello': request.path}\n"
POST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody"
ECHO = "def handle(request):\n    return request.body, 200, {'x-path': request.path}\n"


def until_closed(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_cell_is_healthy_before_and_after_it_has_code(shim: Shim) -> None:
    assert shim.ask(target="/_martlet/health").status == 200
    shim.deploy(HELLO)
    assert shim.ask(target="/_martlet/health").json == {"status": "ok"}


def test_health_runs_no_user_code(shim: Shim) -> None:
    shim.deploy("def handle(request):\n    raise SystemExit")
    assert shim.ask(target="/_martlet/health").status == 200


def test_a_cell_without_code_serves_nobody(shim: Shim) -> None:
    assert shim.ask(target="/").status == 503


def test_specialising_says_the_mode_and_the_time(shim: Shim) -> None:
    answer = shim.specialise("import time\ntime.sleep(0.05)\n" + HELLO)
    assert answer.status == 200
    assert answer.json["mode"] == "sync"
    assert answer.json["load_ms"] >= 50


def test_a_cell_is_specialised_once(shim: Shim) -> None:
    shim.deploy(HELLO)
    assert shim.specialise("def handle(request):\n    return 'other'").status == 409
    assert shim.ask(target="/a").json == {"hello": "/a"}


@pytest.mark.parametrize("function", ["def", "async def"])
def test_the_connection_that_specialised_goes_on_to_carry_invocations(shim: Shim, function: str) -> None:
    (shim.code / "handler.py").write_text(f"{function} handle(request):\n    return request.path")
    spec = {"function": "f", "revision": 1, "code": str(shim.code), "dependencies": None, "handler": "handle"}
    spec |= {"environment": {}, "concurrency": 1, "max_body": 1000}
    with shim.client() as client:
        assert client.ask("POST", "/_martlet/specialise", json.dumps(spec)).status == 200
        assert [client.ask(target=f"/{n}").text for n in range(3)] == ["/0", "/1", "/2"]


def test_a_cell_answers_whoever_asks_while_others_keep_their_connections(shim: Shim) -> None:
    with shim.client() as first, shim.client() as second:
        for client in (first, second, first):
            assert client.ask(target="/_martlet/health").status == 200
        shim.deploy(HELLO)
        assert until_closed(first.sock) == until_closed(second.sock) == b""
        assert shim.ask(target="/a").json == {"hello": "/a"}


def test_what_a_cell_has_practised_leaves_nothing_to_the_function(zygote: Zygote, tmp_path: Path) -> None:
    source = """
        import logging, os, sys

        def handle(request):
            descriptors, modules = os.listdir("/proc/self/fd"), sorted(sys.modules)
            return [os.getcwd(), sys.argv, sys.path, dict(os.environ), len(descriptors), modules]
    """
    said = []
    for number, (fork, seconds) in enumerate(
        ((zygote.fork, 0), (zygote.fork, 0.5), (zygote.fork_one_that_stands_by, 0))
    ):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        shim = Shim(folder, fork)
        time.sleep(seconds)  # what stands ready practises
        said.append(shim.deploy(dedent(source)).ask().text.replace(str(folder), "there"))
        shim.close()
    assert said[0] == said[1] == said[2]


def test_a_cell_that_has_practised_ends_when_it_is_asked_to(zygote: Zygote, tmp_path: Path) -> None:
    shim = Shim(tmp_path, zygote.fork_one_that_stands_by)
    assert shim.ask(target="/_martlet/health").status == 200
    shim.process.terminate()
    assert shim.process.wait(SECONDS) == 0
    shim.close()


def test_a_request_to_specialise_that_lacks_a_member_is_an_error_that_names_it(shim: Shim) -> None:
    answer = shim.ask("POST", "/_martlet/specialise", b"{}")
    assert answer.status == 500
    assert answer.json["error"]["type"] == "KeyError"
    assert "function" in answer.json["error"]["message"]


def test_unknown_paths_of_the_platform_never_reach_the_function(shim: Shim) -> None:
    shim.deploy(HELLO)
    assert shim.ask(target="/_martlet/other").status == 404


def test_a_connection_is_kept_and_then_another_is_served(shim: Shim) -> None:
    shim.deploy(HELLO)
    for _ in range(2):
        with shim.client() as client:
            assert [client.ask(target=f"/{n}").json["hello"] for n in range(20)] == [
                f"/{n}" for n in range(20)
            ]


@pytest.mark.parametrize("handler", [ECHO, "async " + ECHO], ids=["sync", "async"])
class TestHttp:
    """Both servers read and write the same HTTP."""

    def test_a_request_may_come_byte_by_byte(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        with shim.raw() as connection:
            for byte in POST.replace(b"host: h", b"connection: close"):
                connection.sendall(bytes([byte]))
            assert until_closed(connection).endswith(b"\r\n\r\nbody")

    def test_requests_may_be_pipelined(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        last = POST.replace(b"host: h", b"connection: close")
        with shim.raw() as connection:
            connection.sendall(POST + POST.replace(b"body", b"next") + last)
            answer = until_closed(connection)
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert answer.index(b"body") < answer.index(b"next") < answer.rindex(b"body")

    def test_a_chunked_body_is_put_together(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        with shim.client() as client:
            client.request("POST", "/", iter([b"one ", b"two ", b"three"]), encode_chunked=True)
            assert client.getresponse().read() == b"one two three"
            assert client.ask("POST", "/", b"and the next").body == b"and the next"

    def test_chunks_may_be_cut_anywhere_and_have_extensions_and_trailers(
        self, shim: Shim, handler: str
    ) -> None:
        shim.deploy(handler)
        request = (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"3;name=value\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\ntrailer: x\r\n\r\n"
        )
        with shim.raw() as connection:
            for byte in request:
                connection.sendall(bytes([byte]))
            assert until_closed(connection).endswith(b"\r\n\r\nabc0123456789abcdef")

    def test_large_bodies_go_both_ways(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        body = bytes(range(256)) * (5 * 4096)
        assert shim.ask("POST", "/", body).body == body

    def test_a_body_over_the_limit_is_413(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler, max_body=100)
        assert shim.ask("POST", "/", b"x" * 100).status == 200
        too_long = b"content-length: 101\r\n\r\n"
        too_many = b"transfer-encoding: chunked\r\n\r\n" + (b"3c\r\n" + b"x" * 60 + b"\r\n") * 2
        for rest in (too_long, too_many):
            with shim.raw() as connection:
                connection.sendall(b"POST / HTTP/1.1\r\n" + rest)
                assert until_closed(connection).startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize(
        "request_",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET nowhere HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nname : value\r\n\r\n",
            b"GET / HTTP/1.1\r\nname: value\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nname: a\nother: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nname: \0\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        ],
    )
    def test_what_is_malformed_is_400_and_the_process_lives(
        self, shim: Shim, handler: str, request_: bytes
    ) -> None:
        shim.deploy(handler)
        with shim.raw() as connection:
            connection.sendall(request_)
            assert until_closed(connection).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert shim.ask().status == 200

    def test_a_head_without_end_is_431(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        with shim.raw() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nlong: " + b"x" * 70_000)
            assert until_closed(connection).startswith(b"HTTP/1.1 431 ")
        assert shim.ask().status == 200

    def test_a_client_that_leaves_in_the_middle_is_forgotten(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        for part in (b"GET / HT", b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc", b""):
            with shim.raw() as connection:
                connection.sendall(part)
        assert shim.ask("POST", "/", b"fine").body == b"fine"

    def test_a_head_request_has_no_body(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        with shim.client() as client:
            answer = client.ask("HEAD", "/a", b"12345")
            assert (answer.body, answer.headers["content-length"]) == (b"", "5")
            assert client.ask("POST", "/a", b"12345").body == b"12345"

    def test_http_1_0_is_answered_and_closed(self, shim: Shim, handler: str) -> None:
        shim.deploy(handler)
        with shim.raw() as connection:
            connection.sendall(b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi")
            assert until_closed(connection).endswith(b"\r\n\r\nhi")

    def test_the_end_waits_for_the_request_that_runs(self, shim: Shim, handler: str, tmp_path: Path) -> None:
        gate, began = tmp_path / "gate", tmp_path / "began"
        wait = "await asyncio.sleep(0.002)" if handler.startswith("async") else "time.sleep(0.002)"
        body = (
            f"    Path('{began}').touch()\n    while not Path('{gate}').exists():\n        {wait}\n    return"
        )
        code = handler.replace("    return", body)
        shim.deploy(f"import asyncio, time\nfrom pathlib import Path\n{code}")
        with shim.client() as idle, shim.client() as client:
            if handler.startswith("async"):
                idle.ask("GET", "/_martlet/health")
            client.request("POST", "/", b"late")
            until(began.exists)
            shim.process.terminate()
            gate.touch()
            assert client.getresponse().read() == b"late"
        assert shim.process.wait(SECONDS) == 0

    def test_an_idle_instance_ends_at_once_when_asked_to(self, shim: Shim, handler: str) -> None:
        marker = shim.code / "ended"
        shim.deploy(f"import atexit, pathlib\natexit.register(pathlib.Path('{marker}').touch)\n{handler}")
        with shim.client() as client:
            client.ask()
            shim.process.terminate()
            assert shim.process.wait(SECONDS) == 0
        assert marker.exists()


def test_a_cell_without_code_ends_when_asked_to(shim: Shim) -> None:
    assert shim.ask(target="/_martlet/health").status == 200
    shim.process.terminate()
    assert shim.process.wait(SECONDS) == 0


def test_the_shim_is_a_program_too(program_shim: Shim) -> None:
    program_shim.deploy(
        "import os, sys\n" + HELLO.replace("request.path", "[__name__, sys.argv, dict(os.environ)]")
    )
    name, arguments, environment = program_shim.ask().json["hello"]
    assert (name, arguments) == ("handler", [f"{program_shim.code}/handler.py"])
    assert "LEFT_OVER" not in environment
    program_shim.process.terminate()
    assert program_shim.process.wait(SECONDS) == 0


def test_up_to_concurrency_requests_run_at_once_in_threads(shim: Shim) -> None:
    shim.deploy(
        "import threading\nbarrier = threading.Barrier(3)\n"
        "def handle(request):\n    barrier.wait(60)\n    return 'together'",
        concurrency=3,
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(shim.client()) for _ in range(3)]
        for client in clients:
            client.request("GET", "/")
        assert [client.getresponse().read() for client in clients] == [b"together"] * 3


def test_threads_do_not_outgrow_the_concurrency(shim: Shim) -> None:
    shim.deploy("import threading\ndef handle(request):\n    return threading.active_count()", concurrency=3)
    for _ in range(10):
        assert shim.ask().json <= 3


def test_async_requests_run_at_once_on_one_loop(shim: Shim) -> None:
    shim.deploy(
        "import asyncio\nbarrier = asyncio.Barrier(3)\n"
        "async def handle(request):\n    await barrier.wait()\n    return 'together'",
        concurrency=3,
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(shim.client()) for _ in range(3)]
        for client in clients:
            client.request("GET", "/")
        assert [client.getresponse().read() for client in clients] == [b"together"] * 3


def test_background_tasks_go_on_between_requests(shim: Shim) -> None:
    done = shim.code / "done"
    shim.deploy(
        "import asyncio, pathlib\n"
        f"async def later():\n    await asyncio.sleep(0.01)\n    pathlib.Path('{done}').touch()\n"
        "async def handle(request):\n    handle.task = asyncio.create_task(later())\n    return 'soon'"
    )
    assert shim.ask().text == "soon"
    until(done.exists)


@pytest.mark.parametrize("function", ["def", "async def"])
def test_context_variables_do_not_leak_into_the_next_request(shim: Shim, function: str) -> None:
    shim.deploy(
        "from contextvars import ContextVar\nuser = ContextVar('user', default='nobody')\n"
        f"{function} handle(request):\n    before = user.get()\n    user.set('somebody')\n    return before"
    )
    with shim.client() as client:
        assert [client.ask().text for _ in range(2)] == ["nobody", "nobody"]


@pytest.mark.parametrize("how", ["def", "async def"])
def test_what_a_function_forks_ends_by_sigterm_as_programs_do(shim: Shim, how: str) -> None:
    shim.deploy(
        "import os, signal, time\n"
        f"{how} handle(request):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(60)\n"
        "        os._exit(1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    return str(os.waitpid(child, 0)[1])\n"
    )
    assert shim.ask().text == "15"


@pytest.mark.parametrize("compiled", [False, True])
def test_the_module_of_a_handler_is_one_as_any_other(shim: Shim, compiled: bool) -> None:
    if compiled:
        (shim.code / "__pycache__").mkdir()
    source = """
        import importlib.util, inspect, os, pickle, pkgutil, sys

        class Thing:
            pass

        def handle(request):
            module = sys.modules[__name__]
            found = importlib.util.find_spec(__name__).loader.get_code(__name__).co_filename
            spec = [__spec__.name, __spec__.origin, __spec__.cached, __spec__.has_location, __spec__.parent]
            beside = importlib.util.spec_from_file_location(__name__, __file__)
            usual = [beside.name, beside.origin, beside.cached, beside.has_location, beside.parent]
            return {
                "spec": spec == usual and __loader__ is __spec__.loader,
                "file": [__file__, __cached__, __package__] == [beside.origin, beside.cached, ""] and found == __file__,
                "source": inspect.getsource(Thing).startswith("class Thing"),
                "data": pkgutil.get_data(__name__, "handler.py") == open(__file__, "rb").read(),
                "pickle": type(pickle.loads(pickle.dumps(Thing()))) is Thing,
                "reload": importlib.reload(module) is module,
            }
    """
    said = shim.deploy(dedent(source)).ask().json
    assert set(said.values()) == {True}, said


def test_a_function_sees_no_module_of_the_process_that_it_was_forked_from(shim: Shim) -> None:
    source = """
        import sys

        def handle(request):
            try:
                import martlet
            except ModuleNotFoundError as error:
                return [str(error), sorted(vars(sys.modules["__main__"])), "handler" in sys.modules]
    """
    said = shim.deploy(dedent(source)).ask().json
    assert said[0] == "No module named 'martlet'"
    assert said[1] == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]
    assert said[2]
