"""What a Python function prints and logs, as the node reads it from the instance's log."""

import json

import pytest

from tests.contract.python_shim import Shim, until

KINDS = pytest.mark.parametrize("define", ["def", "async def"], ids=["sync", "async"])


def said(shim: Shim, count: int) -> list[tuple[str | None, str, str]]:
    """Waits for that many frames; returns request id, stream and text of each."""
    until(lambda: len(shim.frames()) >= count)
    return [(frame["id"], frame["s"], frame["m"]) for frame in shim.frames()]


def handler(body: str, define: str = "def", more: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import sys, os, logging, threading, time\n{more}\n{define} handle(request):\n{lines}    return 'x'\n"


@KINDS
def test_what_is_printed_carries_the_request(shim: Shim, define: str) -> None:
    shim.deploy(handler("print('out', 1)\nprint('err \u00e9', file=sys.stderr)", define, "print('loading')"))
    shim.ask(x_request_id="R1")
    shim.ask(x_request_id="R2")
    assert said(shim, 5) == [
        (None, "stdout", "loading"),
        ("R1", "stdout", "out 1"),
        ("R1", "stderr", "err \u00e9"),
        ("R2", "stdout", "out 1"),
        ("R2", "stderr", "err \u00e9"),
    ]


def test_a_frame_says_when(shim: Shim) -> None:
    shim.deploy(handler("print(time.time())\nprint(time.time())"))
    shim.ask()
    said(shim, 2)
    first, second = shim.frames()
    rounded = 0.001
    assert (
        float(first["m"]) - rounded <= first["t"] <= float(second["m"]) + rounded <= second["t"] + 2 * rounded
    )


def test_lines_are_frames_however_they_are_written(shim: Shim) -> None:
    shim.deploy(
        handler(
            "sys.stdout.write('one\\ntwo\\nth')\nsys.stdout.write('ree\\n\\n')\n"
            "sys.stdout.buffer.write(b'bytes \\xff\\n')\nsys.stdout.writelines(['a', 'b', '\\n'])\n"
            "print('unfinished', end='')"
        )
    )
    shim.ask(x_request_id="R1")
    assert [text for _, _, text in said(shim, 7)] == [
        "one", "two", "three", "", "bytes \ufffd", "ab", "unfinished",
    ]  # fmt: skip
    assert {request for request, _, _ in said(shim, 7)} == {"R1"}


@pytest.mark.parametrize(
    "code",
    [
        "def handle(request):\n    print('no end', end='')\n    return 'x' * 5_000_000",
        "async def handle(request):\n    print('no end', end='')\n    return 'x' * 5_000_000",
        "def application(environ, start_response):\n    print('no end', end='')\n    start_response('200 OK', [])\n"
        "    return [bytes(5_000_000)]",
        "async def app(scope, receive, send):\n    if scope['type'] != 'http':\n        raise NotImplementedError\n"
        "    print('no end', end='')\n    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': bytes(5_000_000)})",
    ],
    ids=["sync", "async", "wsgi", "asgi"],
)
def test_what_is_unfinished_is_written_before_the_response_has_ended(shim: Shim, code: str) -> None:
    assert shim.specialise(code).status == 200
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx-request-id: R1\r\n\r\n")
        # Nobody reads the response, which is more than there is room for on its way.
        assert shim.logged(lambda frame: frame["m"] == "no end")["id"] == "R1"


def test_flushing_writes_what_is_unfinished(shim: Shim) -> None:
    shim.deploy(handler("print('now', end='', flush=True)\nos._exit(0)"))
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""
    assert said(shim, 1)[0][2] == "now"


@pytest.mark.parametrize("piece", ["x", "\u20ac", '\\"\0', "\U0001f600"])
def test_long_lines_come_in_frames_that_a_pipe_takes_whole(shim: Shim, piece: str) -> None:
    text = piece * 30_000
    shim.deploy(handler(f"print({piece!r} * 30_000)"))
    shim.ask(x_request_id="R1")
    until(lambda: sum(len(frame["m"]) for frame in shim.frames()) >= len(text))
    assert "".join(frame["m"] for frame in shim.frames()) == text
    assert all(len(line) <= 4096 and line.startswith(b"\x1e") for line in shim.lines)
    assert all(frame["id"] == "R1" for frame in shim.frames())


def test_long_tracebacks_are_cut_between_lines(shim: Shim) -> None:
    shim.deploy(handler("raise ValueError('\\n'.join('line %d' % n for n in range(3000)))"))
    shim.ask()
    shim.logged(lambda frame: frame["m"].endswith("line 2999"))
    lines = [line for frame in shim.frames() for line in frame["m"].split("\n")]
    assert lines[-3000:] == ["ValueError: line 0", *(f"line {n}" for n in range(1, 3000))]


@KINDS
def test_logging_has_the_level_as_its_stream(shim: Shim, define: str) -> None:
    shim.deploy(
        handler(
            "logging.debug('d')\nlogging.info('i %s', 1)\nlogging.getLogger('lib').warning('w')\n"
            "logging.error('e')\nlogging.critical('c')",
            define,
        )
    )
    shim.ask(x_request_id="R1")
    assert said(shim, 4) == [
        ("R1", "info", "i 1"),
        ("R1", "warning", "w"),
        ("R1", "error", "e"),
        ("R1", "critical", "c"),
    ]


def test_logging_an_exception_brings_its_traceback(shim: Shim) -> None:
    shim.deploy(handler("try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('failed')"))
    shim.ask()
    text = said(shim, 1)[0][2]
    assert text.startswith("failed\nTraceback (most recent call last):\n")
    assert text.endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        ("logging.basicConfig(level=logging.DEBUG)", [("debug", "d"), ("error", "e")]),
        ("logging.basicConfig(level='ERROR')", [("error", "e")]),
        ("logging.basicConfig(format='%(levelname)s|%(message)s')", [("stderr", "ERROR|e")]),
        ("logging.basicConfig()", [("error", "e")]),
    ],
)
def test_basic_config_works_as_in_a_program(
    shim: Shim, configure: str, expected: list[tuple[str, str]]
) -> None:
    shim.deploy(handler("logging.debug('d')\nlogging.error('e')", more=configure))
    shim.ask()
    assert [(stream, text) for _, stream, text in said(shim, len(expected))] == expected


def test_a_thread_of_the_handler_belongs_to_the_request_that_runs(shim: Shim) -> None:
    shim.deploy(handler("t = threading.Thread(target=print, args=['from a thread'])\nt.start()\nt.join()"))
    shim.ask(x_request_id="R1")
    assert said(shim, 1) == [("R1", "stdout", "from a thread")]


@KINDS
def test_requests_that_run_at_once_are_told_apart(shim: Shim, define: str) -> None:
    wait = "barrier.wait(60)" if define == "def" else "await barrier.wait()"
    kind = "threading" if define == "def" else "asyncio"
    shim.deploy(
        handler(
            f"for n in range(20):\n    print(request.path, end=' ')\n    {wait}\n    print(n)",
            define,
            f"import {kind}\nbarrier = {kind}.Barrier(2)",
        ),
        concurrency=2,
    )
    with shim.client() as one, shim.client() as two:
        one.request("GET", "/one", headers={"x-request-id": "R1"})
        two.request("GET", "/two", headers={"x-request-id": "R2"})
        one.getresponse().read()
        two.getresponse().read()
    lines = said(shim, 40)
    assert [text for request, _, text in lines if request == "R1"] == [f"/one {n}" for n in range(20)]
    assert [text for request, _, text in lines if request == "R2"] == [f"/two {n}" for n in range(20)]


def test_an_async_task_belongs_to_the_request_that_made_it(shim: Shim) -> None:
    shim.deploy(
        "import asyncio\nasync def inner():\n    await asyncio.sleep(0)\n    print('inner')\n"
        "async def handle(request):\n    await asyncio.gather(inner(), asyncio.to_thread(print, 'thread'))\n"
        "    return 'x'",
        concurrency=5,
    )
    shim.ask(x_request_id="R1")
    assert sorted(said(shim, 2)) == [("R1", "stdout", "inner"), ("R1", "stdout", "thread")]


def test_many_threads_never_mix_their_frames(shim: Shim) -> None:
    shim.deploy(
        handler(
            "def work(n):\n    for i in range(50):\n        print(str(n) * 3000)\n"
            "threads = [threading.Thread(target=work, args=[n]) for n in range(8)]\n"
            "for t in threads: t.start()\nfor t in threads: t.join()"
        )
    )
    shim.ask()
    texts = [text for _, _, text in said(shim, 400)]
    assert len(texts) == 400
    assert all(text == text[0] * 3000 for text in texts)


def test_raw_writes_are_left_alone(shim: Shim) -> None:
    shim.deploy(handler("os.write(1, b'raw\\n')\nos.system('echo from a child')"))
    shim.ask()
    until(lambda: len(shim.lines) == 2)
    assert shim.lines == [b"raw\n", b"from a child\n"]


def test_streams_look_like_streams(shim: Shim) -> None:
    shim.deploy(
        "import sys\ndef handle(request):\n    out = sys.stdout\n"
        "    out.flush()\n    out.reconfigure(line_buffering=True)\n"
        "    return [out.fileno(), sys.stderr.fileno(), out.isatty(), out.encoding, out.writable(), out.name,\n"
        "            out.buffer.fileno(), out is sys.__stdout__, out.closed]"
    )
    assert shim.ask().json == [1, 2, False, "utf-8", True, "<stdout>", 1, True, False]


@pytest.mark.parametrize(
    "pipe", ["os.close(reader)", "os.set_blocking(writer, False)"], ids=["no reader", "full"]
)
def test_printing_never_fails_even_when_nobody_reads(shim: Shim, pipe: str) -> None:
    shim.deploy(
        handler(
            f"reader, writer = os.pipe()\n{pipe}\nos.dup2(writer, 1)\nos.dup2(writer, 2)\n"
            "print('x' * 500_000)\nlogging.error('x' * 500_000)\nprint('y', file=sys.stderr, flush=True)"
        )
    )
    assert [shim.ask().text for _ in range(2)] == ["x", "x"]


def test_surrogates_and_control_characters_can_be_printed(shim: Shim) -> None:
    shim.deploy(handler("print('\\udcff \\x1e \\x00')\nlogging.info('\\udcff')"))
    shim.ask()
    texts = [text for _, _, text in said(shim, 2)]
    assert texts == ["\\udcff \x1e \0", "?"]


def test_a_warning_and_an_unhandled_error_of_a_thread_are_logged(shim: Shim) -> None:
    shim.deploy(
        handler(
            "import warnings\nwarnings.warn('careful')\n"
            "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()"
        )
    )
    shim.ask(x_request_id="R1")
    shim.logged(lambda frame: "UserWarning: careful" in frame["m"] and frame["s"] == "stderr")
    shim.logged(lambda frame: "ZeroDivisionError" in frame["m"] and frame["id"] == "R1")


def test_every_line_of_the_log_is_a_frame_or_plain_text(shim: Shim) -> None:
    shim.deploy(handler("print('a')\nraise ValueError('b')"))
    shim.ask(x_request_id='quote " and \\ backslash')
    said(shim, 2)
    for line in shim.lines:
        assert line.startswith(b"\x1e")
        assert set(json.loads(line[1:])) == {"t", "id", "s", "m"}
