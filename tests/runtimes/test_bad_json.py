"""A body that is not JSON is answered as every error is: with a problem document that names the request."""

import json

import pytest

from tests.runtimes import build, shim
from tests.runtimes.conftest import COMPILED
from tests.runtimes.test_wire import CLOSE, exchange, get

JAVASCRIPT = ("handler.cjs", "module.exports = (request) => request.json();\n")
CODE = {
    "node": JAVASCRIPT,
    "bun": JAVASCRIPT,
    "deno": JAVASCRIPT,
    "ruby": ("handler.rb", "def handle(request)\n  request.json\nend\n"),
    "php": ("handler.php", "<?php\nfunction handle($request)\n{\n    return $request->json();\n}\n"),
    "perl": ("handler.pl", "sub handle { return $_[0]->json }\n1;\n"),
    "elixir": (
        "handler.exs",
        "defmodule Handler do\n  def handle(request), do: Martlet.Request.json(request)\nend\n",
    ),
    "java": (
        "Handler.java",
        "public class Handler {\n    public Object handle(martlet.Request request) throws Exception {\n"
        "        return request.getJson();\n    }\n}\n",
    ),
    "go": (
        "handler.go",
        'package function\n\nimport "martlet"\n\n'
        "func Handle(request *martlet.Request) (any, error) {\n\tvar found any\n"
        "\terr := request.JSON(&found)\n\treturn found, err\n}\n",
    ),
    "rust": (
        "handler.rs",
        "pub fn handle(request: martlet::Request) -> Result<martlet::Json, martlet::BadJson> {\n"
        "    request.json()\n}\n",
    ),
    "cpp": (
        "handler.cpp",
        "#include <martlet.hpp>\n\nmartlet::Json handle(const martlet::Request& request) {\n"
        "    return request.json();\n}\n",
    ),
}
PROGRAMS = ("go", "rust", "cpp")
"""Languages whose functions are programs themselves."""
REQUEST = get("/", CLOSE, "content-length: 2", "x-request-id: r7", method="POST") + b"{]"

pytestmark = [pytest.mark.slow, COMPILED]


@pytest.mark.parametrize("language", CODE)
def test_a_body_that_is_no_json_is_a_problem_of_the_request(language, tmp_path):
    runtime, folder, log = build.find(language), tmp_path / "function", tmp_path / "log"
    folder.mkdir()
    name, text = CODE[language]
    (folder / name).write_text(text)
    if language == "java" or language in PROGRAMS:
        built = build.build(runtime, folder)
        assert built.code == 0, built.log + built.answer
    served = (
        shim.running([folder / "function"], folder)
        if language in PROGRAMS
        else build.serving(runtime, folder, log)
    )
    with served as running:
        answer = exchange(running, REQUEST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["code"], problem["request_id"]) == ("bad_json", "r7")
