"""What the shim of Elixir brings because Elixir has none: JSON, and requests as processes that end in many ways."""

import base64
import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from martlet import runtimes
from tests.conftest import require
from tests.runtimes import shim
from tests.runtimes.test_wire import CLOSE, exchange, get
from tests.system.conftest import until

FOLDER = Path(runtimes.__file__).resolve().parent / "elixir"

RECODE = """
for line <- IO.stream(:stdio, :line) do
  text = line |> String.trim() |> Base.decode64!()
  answer =
    try do
      IO.iodata_to_binary(["=", text |> Martlet.JSON.decode() |> Martlet.JSON.encode()])
    rescue
      error in Martlet.JSON.Error -> "!" <> error.message
    end
  IO.puts(Base.encode64(answer))
end
"""

VALUES = [
    None,
    [],
    {},
    [[], {}, [None]],
    {"": " ", "a": {"b": [True, False, None]}},
    [0, -1, 2**63 - 1, 10**40, 0.1, -2.5e-300, 1e300, 5e-324],
    'quote " backslash \\ slash / control \x00\x1f\x7f\b\f\n\r\t żółw 🐢 \u2028',
]

NO_JSON = [
    "",
    "[",
    "[1,]",
    "[1 2]",
    '{"a"}',
    '{"a":1,}',
    "{a:1}",
    '"',
    '"\n"',
    r'"\x"',
    r'"\u12"',
    r'"\ud800"',
    r'"\ud800\u0041"',
    "01",
    "1.",
    "-",
    "1e",
    "1e999",
    "9" * 100_000,
    "nul",
    "1 2",
    "[" * 100_000,
]

HANDLER = """
defmodule Ends do
  def handle(%{path: "/throw"}), do: throw({:reason, 1})
  def handle(%{path: "/exit"}), do: exit(:reason)
  def handle(%{path: "/kill"}), do: Process.exit(self(), :kill)
  def handle(%{path: "/linked"}) do
    spawn_link(fn -> raise "the reason" end)
    Process.sleep(:infinity)
  end
  def handle(%{path: "/half"}), do: Stream.map([1, 0], &"#{1 / &1}")
  def handle(%{path: "/tuple"}), do: {:ok, 1}
  def handle(%{path: "/json"} = request), do: Martlet.Request.json(request)
  def handle(%{path: "/children"}) do
    Task.await(Task.async(fn ->
      IO.puts("from a task")
      IO.puts(:stderr, "its stderr")
    end))
    IO.write("without an end")
  end
  def handle(%{path: "/later"}) do
    Process.register(spawn(fn -> receive do: (from -> send(from, IO.puts("later"))) end), :later)
  end
  def handle(%{path: "/now"}) do
    send(:later, self())
    receive do: (:ok -> nil)
  end
  def handle(%{path: "/long"}), do: IO.puts(String.duplicate("ż\\0", 5000))
  def handle(_), do: "alive"
end
"""


def elixir():
    """Returns the program."""
    program = shutil.which("elixir")
    require(program, "elixir is not installed")
    return program


@pytest.fixture(scope="module")
def recoded():
    """What becomes of a document that is read and written again: `=` and JSON, or `!` and why not."""
    documents = [
        json.dumps(value, ensure_ascii=ascii_only, indent=1) for value in VALUES for ascii_only in (0, 1)
    ]
    documents = [*documents, *NO_JSON]
    lines = b"\n".join(base64.b64encode(document.encode()) for document in documents)
    done = subprocess.run(
        [elixir(), "-r", FOLDER / "martlet/json.ex", "-e", RECODE],
        input=lines,
        capture_output=True,
        check=True,
    )
    answers = [base64.b64decode(line).decode() for line in done.stdout.splitlines()]
    return dict(zip(documents, answers, strict=True))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_is_read_and_written_without_loss(recoded, value, ascii_only):
    answer = recoded[json.dumps(value, ensure_ascii=ascii_only, indent=1)]
    assert answer.startswith("=")
    assert json.loads(answer[1:]) == value


@pytest.mark.parametrize("document", NO_JSON, ids=lambda document: document[:20])
def test_what_is_not_json_is_refused(recoded, document):
    answer = recoded[document]
    assert answer.startswith("!")
    assert " at byte " in answer


def running(code, log=None, handler="handle"):
    """Starts the shim with the code of a folder."""
    start = tomllib.loads((FOLDER / "runtime.toml").read_text())["start"]
    command = [part.format(program=elixir(), runtime=FOLDER) for part in start["command"]]
    return shim.running(command, code, log=log, handler=handler)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The shim, with a function whose requests end in many ways, and its log."""
    folder = tmp_path_factory.mktemp("ends")
    (folder / "handler.exs").write_text(HANDLER)
    log = tmp_path_factory.mktemp("log") / "log"
    with log.open("wb") as file, running(folder, file) as alone:
        assert "mode" in alone.answer, log.read_text()
        yield alone, log


def frames(log):
    """Returns the frames of a log: message by stream and request."""
    lines = [line[1:] for line in log.read_text().split("\n") if line.startswith("\x1e")]
    return [(frame["id"], frame["s"], frame["m"]) for frame in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("/throw", "Throw", "{:reason, 1}"),
        ("/exit", "Exit", ":reason"),
        ("/kill", "Exit", "killed"),
        ("/linked", "Exit", "the reason"),
        ("/tuple", "Martlet.JSON.Error", "{:ok, 1} cannot be written as JSON"),
    ],
)
def test_however_a_request_ends_it_is_answered(ends, path, kind, message):
    shim, _ = ends
    head, _, body = exchange(shim, get(path, CLOSE)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    document = json.loads(body)
    assert document["type"] == kind
    assert message in document["message"]
    assert exchange(shim, get("/", CLOSE)).endswith(b"alive")


def test_a_stream_that_fails_is_cut_short(ends):
    shim, log = ends
    answer = exchange(shim, get("/half", "x-request-id: half"))
    assert b"\r\n3\r\n1.0\r\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert [
        stream
        for request, stream, message in frames(log)
        if request == "half" and "ArithmeticError" in message
    ] == ["error"]


def test_a_body_that_is_no_json_is_the_clients_mistake(ends):
    shim, _ = ends
    request = get("/json", CLOSE, "content-length: 2", method="POST") + b"{]"
    answer = exchange(shim, request)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_json"' in answer


def test_what_processes_of_a_request_print_has_its_id(ends):
    shim, log = ends
    assert exchange(shim, get("/children", CLOSE, "x-request-id: abc")).startswith(b"HTTP/1.1 204 ")
    assert [frame for frame in frames(log) if frame[0] == "abc"] == [
        ("abc", "stdout", "from a task"),
        ("abc", "stderr", "its stderr"),
        ("abc", "stdout", "without an end"),
    ]


def test_a_process_that_outlives_its_connection_can_print(ends):
    shim, log = ends
    exchange(shim, get("/later", CLOSE, "x-request-id: before"))
    assert exchange(shim, get("/now", CLOSE, "x-request-id: after")).startswith(b"HTTP/1.1 204 ")
    until(lambda: "later" in [message for _, _, message in frames(log)], why="it did not print")
    assert [request for request, _, message in frames(log) if message == "later"] == [None]


def test_a_long_line_is_cut_into_frames(ends):
    shim, log = ends
    exchange(shim, get("/long", CLOSE, "x-request-id: long"))
    assert "".join(message for request, _, message in frames(log) if request == "long") == "ż\0" * 5000
    assert max(len(line) for line in log.read_bytes().split(b"\n")) < 4096


def test_a_module_in_lib_can_be_the_handler(tmp_path):
    (tmp_path / "lib/shop").mkdir(parents=True)
    (tmp_path / "lib/shop/price.ex").write_text("defmodule Shop.Price do\n  def of(_), do: 3\nend")
    (tmp_path / "lib/shop.ex").write_text("defmodule Shop do\n  def greet(r), do: Shop.Price.of(r)\nend")
    with running(tmp_path, handler="Shop.greet") as alone:
        assert exchange(alone, get("/", CLOSE)).endswith(b"\r\n\r\n3")


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("defmodule Shop do\nend", "Martlet.LoadError", "no module of handler.exs has no function handle/1"),
        ("defmodule Shop do", "TokenMissingError", "missing terminator: end"),
        ('raise "the reason"', "RuntimeError", "the reason"),
        ("exit(:reason)", "Exit", ":reason"),
    ],
)
def test_code_that_does_not_load_is_told(tmp_path, source, kind, message):
    (tmp_path / "handler.exs").write_text(source)
    with running(tmp_path, subprocess.DEVNULL) as alone:
        assert alone.answer["error"]["type"] == kind
        assert message in alone.answer["error"]["message"]


def test_code_in_lib_that_does_not_compile_is_told(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/shop.ex").write_text("defmodule Shop do\n  def a, do: b\nend")
    (tmp_path / "handler.exs").write_text("defmodule Handler do\n  def handle(_), do: nil\nend")
    with running(tmp_path, subprocess.DEVNULL) as alone:
        assert alone.answer["error"]["type"] == "Martlet.LoadError"
        assert "lib/shop.ex: " in alone.answer["error"]["message"]
