"""An instance that nobody asks for long gives back memory that it only looked at, and is otherwise as it was."""

import os
import signal

import pytest

from martlet.sandbox import immortal, machine_code
from tests.processes import lives
from tests.system.conftest import until

pytestmark = pytest.mark.skipif(
    not (machine_code.possible() and immortal.possible()), reason="this machine or Python has no code for it"
)
ENOUGH = 20
"""So many functions take all cells that were there before their zygote had learnt to fork them."""
COUNTS = """
asked = []

def handle(request):
    asked.append(request.get_json())
    return {"asked": len(asked), "sum": sum(each["n"] for each in asked)}
"""
THREADED = """
import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
RESTED = 90
"""Seconds within which an instance has rested, on a busy machine too."""


def memory(platform, name):
    (instance,) = platform.instances(name)
    return instance["memory_bytes"]


def ask(platform, name, n):
    answer = platform.invoke(name, json={"n": n})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_instances_that_idle_give_memory_back_and_go_on_as_they_were(make_platform):
    platform = make_platform(lanes=1)
    platform.start()
    for number in range(ENOUGH):
        platform.deploy(f"before-{number}", COUNTS)
    for name, code in (("idles", COUNTS), ("ends", COUNTS), ("threaded", THREADED + COUNTS)):
        platform.deploy(name, code)
        assert ask(platform, name, 1) == {"asked": 1, "sum": 1}
    before = {name: memory(platform, name) for name in ("idles", "ends", "threaded")}

    for name in ("idles", "ends"):
        until(
            lambda name=name: memory(platform, name) < before[name] * 0.7,
            within=RESTED,
            why=f"{name} kept all",
        )

    assert ask(platform, "idles", 10) == {"asked": 2, "sum": 11}
    assert ask(platform, "idles", 100) == {"asked": 3, "sum": 111}
    assert memory(platform, "threaded") > before["threaded"] * 0.75
    assert ask(platform, "threaded", 10) == {"asked": 2, "sum": 11}
    (resting,) = platform.instances("ends")
    os.kill(resting["pid"], signal.SIGTERM)
    until(lambda: not lives(resting["pid"]), why="one that rests did not hear that it is to end")
    assert ask(platform, "ends", 5) == {"asked": 1, "sum": 5}
