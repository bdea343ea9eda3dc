"""What a request has printed is in the log before its response has ended, also where no line end came: whoever has the
response may look for it, or end the process.
"""

import os
import select
from pathlib import Path

import pytest

from tests.runtimes import build, shim
from tests.runtimes.conftest import COMPILED
from tests.runtimes.test_wire import CLOSE, connected, get, rest
from tests.system.conftest import until

SCRIPT = "module.exports = () => {\n  process.stdout.write('no end');\n  return 'answered';\n};\n"
STREAM = """module.exports = async function* handle() {
  yield 'ans';
  process.stdout.write('no end');
  yield 'wered';
};
"""
SLOW_LOG = """
const fs = require('fs');
const write = fs.writeSync;
fs.writeSync = (...given) => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  return write(...given);
};
require('module').syncBuiltinESMExports();
"""
CODE = {
    "node": ("handler.cjs", SCRIPT),
    "bun": ("handler.cjs", SCRIPT),
    "deno": ("handler.cjs", SCRIPT),
    "ruby": ("handler.rb", "def handle(request)\n  print 'no end'\n  'answered'\nend\n"),
    "php": (
        "handler.php",
        "<?php\nfunction handle($request)\n{\n    echo 'no end';\n    return 'answered';\n}\n",
    ),
    "perl": ("handler.pl", "sub handle { print 'no end'; return 'answered' }\n1;\n"),
    "elixir": (
        "handler.exs",
        'defmodule Handler do\n  def handle(_) do\n    IO.write("no end")\n    "answered"\n  end\nend\n',
    ),
    "java": (
        "Handler.java",
        "public class Handler {\n    public Object handle(martlet.Request request) {\n"
        '        System.out.print("no end");\n        return "answered";\n    }\n}\n',
    ),
    "go": (
        "handler.go",
        'package function\n\nimport (\n\t"fmt"\n\t"martlet"\n)\n\n'
        'func Handle(*martlet.Request) any {\n\tfmt.Print("no end")\n\treturn "answered"\n}\n',
    ),
    "rust": (
        "handler.rs",
        'pub fn handle(_: martlet::Request) -> String {\n    print!("no end");\n    "answered".into()\n}\n',
    ),
    "cpp": (
        "handler.cpp",
        "#include <iostream>\n#include <martlet.hpp>\n\nstd::string handle(const martlet::Request&) {\n"
        '    std::cout << "no end";\n    return "answered";\n}\n',
    ),
}
PROGRAMS = ("go", "rust", "cpp")
"""Languages whose functions are programs themselves."""
A_WHILE = 0.5
"""Seconds in which a response would come that waits for nothing; a slow machine finds less, and never too much."""

pytestmark = [pytest.mark.slow, COMPILED]


@pytest.fixture(params=CODE)
def served(request, tmp_path):
    """A function of a language that prints to a pipe: its shim, and the pipe's end to read from."""
    language = request.param
    runtime, folder = build.find(language), tmp_path / "function"
    folder.mkdir()
    name, text = CODE[request.param]
    (folder / name).write_text(text)
    if language == "java" or language in PROGRAMS:
        built = build.build(runtime, folder)
        assert built.code == 0, built.log + built.answer
    reader, writer = os.pipe()
    log = Path(f"/proc/self/fd/{writer}")
    with (
        shim.running([folder / "function"], folder, log=writer)
        if language in PROGRAMS
        else build.serving(runtime, folder, log)
    ) as running:
        os.close(writer)
        yield running, reader
        os.close(reader)


def fill(reader: int) -> None:
    """Leaves no room in a pipe."""
    writer = os.open(f"/proc/self/fd/{reader}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            try:
                while True:
                    os.write(writer, b"." * size)
            except BlockingIOError:
                continue
    finally:
        os.close(writer)


def test_what_has_no_line_end_is_printed_before_the_response_has_ended(served):
    running, reader = served
    fill(reader)
    with connected(running) as peer:
        peer.sendall(get("/", CLOSE))
        if select.select([peer], [], [], A_WHILE)[0]:
            assert not peer.recv(65536).endswith(b"answered"), "it has ended, and there was no room to print"
        printed = b""

        def has_printed() -> bool:
            nonlocal printed
            if select.select([reader], [], [], 0)[0]:
                printed += os.read(reader, 65536)
            return b"no end" in printed

        until(has_printed, why="it is not printed")
        assert rest(peer).endswith(b"answered")


def test_what_a_stream_prints_is_printed_before_it_has_ended_however_long_that_takes(tmp_path):
    folder, log = tmp_path / "function", tmp_path / "log"
    folder.mkdir()
    (folder / "handler.cjs").write_text(STREAM + SLOW_LOG)
    with build.serving(build.find("node"), folder, log) as running, connected(running) as peer:
        peer.sendall(get("/"))
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += peer.recv(65536)
        assert b"no end" in log.read_bytes()
