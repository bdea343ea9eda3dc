"""The quick start works as written: its commands run in order, and what it says they answer is what they answer."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

QUICK_START = Path(__file__).parents[2] / "docs/quick-start.md"
BLOCK = re.compile(r"^```(sh|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_quick_start_works_as_written(platform, tmp_path):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MARTLET_URL": platform.url,
        "MARTLET_KEY": platform.key,
    }
    blocks = BLOCK.findall(QUICK_START.read_text())
    assert sum("curl" in text for language, text in blocks if language == "sh") > 5
    output = ""
    for language, text in blocks:
        if language == "json":
            assert json.loads(output) == json.loads(text)
            continue
        script = "set -e\n" + text.replace("http://127.0.0.1:8000", platform.url)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        output = done.stdout
