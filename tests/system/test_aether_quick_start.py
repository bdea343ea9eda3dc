"""The commands of docs/aether.md, which are those of Aether's own Quick Start, against a real platform."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import httpx2
import pytest

from tests.conftest import require

GUIDE = Path(__file__).parents[2] / "docs" / "aether.md"

SERVER = """
const http = require('http');
const answer = JSON.stringify({hello: process.env.SECRET});
http.createServer((request, response) => response.end(answer)).listen(3000);
"""
HANDLER = "module.exports = async () => ({hello: process.env.SECRET});\n"
PYTHON_SERVER = """
import http.server
import os


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {os.environ['GREETING']}".encode())


http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PYTHON_HANDLER = (
    "import os\n\ndef handle(request):\n    return f\"{request.path} {os.environ['GREETING']}\"\n"
)


@pytest.fixture
def api(platform):
    """Aether's API of a platform."""
    headers = {"authorization": f"Bearer {platform.key}"}
    with httpx2.Client(base_url=platform.url, headers=headers, timeout=60) as client:
        yield client


def quick_start() -> list[str]:
    """Returns the commands of the guide, one for each paragraph or line that begins one."""
    block = re.search(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    return re.split(r"\n+(?=curl|zip)", block[1].strip())


@pytest.mark.parametrize("source", [SERVER, HANDLER], ids=["server", "handler"])
def test_the_quick_start_works_line_for_line(platform, api, tmp_path, source):
    require(shutil.which("curl"), "curl, which the guide uses")
    require("node" in api.get("/runtimes").text, "Node.js, for the function of the guide")
    (tmp_path / "handler.js").write_text(source)
    answers = []
    for command in quick_start():
        if command.startswith("zip "):
            with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
                archive.write(tmp_path / "handler.js", "handler.js")
            continue
        done = subprocess.run(
            ["sh", "-ec", command.replace("http://localhost:8000", platform.url)],
            cwd=tmp_path,
            env=os.environ | {"MARTLET_KEY": platform.key},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    created, uploaded, invoked = answers
    assert '"id":"hello"' in created
    assert "code uploaded" in uploaded, uploaded
    assert invoked == '{"hello":"123"}'
    assert api.delete("/api/functions/hello").status_code == 204


@pytest.mark.parametrize(
    ("source", "runtime"), [(PYTHON_SERVER, "http"), (PYTHON_HANDLER, "python3")], ids=["server", "handler"]
)
def test_a_function_lives_from_its_name_to_its_end(api, tmp_path, source, runtime):
    wishes = {
        "name": "greet",
        "runtime": "python",
        "port": 8123,
        "env_vars": {"GREETING": "hi"},
        "memory_mb": 64,
    }
    made = api.post("/api/functions", json=wishes).json()
    assert made["state"] == "created"
    assert api.get("/functions/greet/").status_code == 404
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("handler.py", source)
    uploaded = api.post(f"/api/functions/{made['id']}/code", content=(tmp_path / "code.zip").read_bytes())
    assert uploaded.status_code == 200, uploaded.text
    assert api.get(f"/functions/{made['id']}/a/b").text == "/a/b hi"
    assert api.get("/api/functions/greet").json()["runtime"].startswith(runtime)

    changed = api.put("/api/functions/greet", json={"env_vars": {"GREETING": "hello"}})
    assert (changed.json()["env_vars"], changed.json()["port"]) == ({"GREETING": "hello"}, 8123)
    assert api.get("/functions/greet/").text == "/ hello"
    runs = api.get("/api/functions/greet/invocations").json()
    assert [run["status"] for run in runs] == ["success", "success"]
    assert api.delete("/api/functions/greet").status_code == 204
    assert api.get("/functions/greet/").status_code == 404
