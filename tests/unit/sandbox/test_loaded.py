"""What a process has loaded, as the loader says."""

import json
import subprocess
from pathlib import Path

import martlet
from martlet.runtimes.interpreter import INTERPRETER

SAYS = "import sys; sys.path.insert(0, sys.argv[1]); from martlet.sandbox import loaded; loaded.main()"


def test_with_what_it_names_the_interpreter_starts_where_its_own_is_not_looked_for(tmp_path: Path):
    own = str(Path(martlet.__file__).parent.parent)
    said = json.loads(subprocess.check_output([INTERPRETER, "-I", "-S", "-c", SAYS, own]))
    by_name = {Path(path).name: path for path in said["libraries"]}

    command = [
        said["loader"],
        "--preload",
        ":".join(by_name.values()),
        INTERPRETER,
        "-I",
        "-S",
        "-c",
        SAYS,
        own,
    ]
    # Traps: what is looked for by name is found here first, and is no library.
    for name in by_name:
        (tmp_path / name).write_text("no library")
    again = json.loads(subprocess.check_output(command, env={"LD_LIBRARY_PATH": str(tmp_path)}))

    assert set(by_name.values()) <= set(again["libraries"])
    assert again["standard"] == said["standard"]
