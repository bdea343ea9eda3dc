"""What a stranger types first works as written: commands run in order, and answer what the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(600)  # one of them builds in several languages
@pytest.mark.parametrize("page", ["README.md", "docs/quick-start.md", "docs/tour.md"])
def test_the_commands_of_a_page_work_as_written(page, platform, tmp_path):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MARTLET_URL": platform.url,
        "MARTLET_KEY": platform.key,
    }
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert any("curl" in text for language, text in blocks if language == "sh")
    output = ""
    for language, text in blocks:
        if language == "json":
            assert json.loads(output) == json.loads(text)
            continue
        script = "set -e\n" + text.replace("http://127.0.0.1:8000", platform.url)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        output = done.stdout
