"""Functions near the limit of their memory: garbage is collected in time, and what truly needs more is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import require
from tests.runtimes.conftest import BUILD_SECONDS, COMPILED

pytestmark = [COMPILED, pytest.mark.root, pytest.mark.slow]

MEMORY = "128Mi"
SECONDS = 120
"""A request may take so long on a machine that has much else to do."""
JAVASCRIPT = """
const kept = [];

const makers = {
  objects: () => Array.from({ length: 20000 }, (_, index) => ({ index, pair: [index, index + 1], text: `x${index}` })),
  numbers: () => new Array(131072).fill(1.5),
  bytes: () => Buffer.alloc(2 ** 20, 1),
};

export default ({ query: { kind, count, keep } }) => {
  for (let made = 0; made < Number(count); made += 1) {
    kept.push(makers[kind]());
    while (kept.length > Number(keep)) kept.shift();
  }
  return 'alive';
};
"""
JAVA = """
import java.util.ArrayDeque;
import martlet.Request;

public class Handler {
    private final ArrayDeque<Object> kept = new ArrayDeque<>();

    public Object handle(Request request) {
        int keep = Integer.parseInt(request.getQuery().get("keep"));
        for (int left = Integer.parseInt(request.getQuery().get("count")); left > 0; left--) {
            kept.add(new byte[1 << 20]);
            while (kept.size() > keep) {
                kept.remove();
            }
        }
        return "alive";
    }
}
"""
COMMON = JAVASCRIPT.replace("export default", "module.exports =")
# Runtime, its code, what it makes, how many of that within a request, and how many it keeps.
CASES = [
    ("node", COMMON, "objects", 60, 4),
    ("deno", JAVASCRIPT, "objects", 60, 4),
    ("bun", JAVASCRIPT, "numbers", 400, 8),
    ("java", JAVA, "bytes", 400, 8),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0])
def hungry(request, platform, runtimes):
    """Asks a function to make much, and to keep some of it."""
    name, code, kind, count, keep = request.param
    found = [runtime for runtime in runtimes.values() if name in runtime["names"] and runtime["builds"]]
    require(found, f"{name}, with what its builds take")
    function = f"hungry-{name}"
    config = {"runtime": name, "memory": MEMORY, "max_instances": 1, "timeout": SECONDS}
    document = {"name": function, "code": code, "config": config}
    answer = platform.client.post("/functions", json=document, timeout=BUILD_SECONDS)
    assert answer.status_code == 201, answer.text

    def ask(count: int, keep: int) -> Any:
        query = {"kind": kind, "count": count, "keep": keep}
        return platform.client.get(f"/invoke/{function}", params=query, timeout=2 * SECONDS)

    return Hungry(name, function, ask, count, keep)


@dataclass(frozen=True)
class Hungry:
    """A function that makes and keeps things, and how many it should be able to."""

    runtime: str
    name: str
    ask: Callable[[int, int], Any]
    count: int
    keep: int


def test_garbage_is_collected_in_time(hungry, platform):
    assert hungry.ask(1, 1).text == "alive"
    before = platform.instances(hungry.name)[0]["id"]
    assert hungry.ask(hungry.count, hungry.keep).text == "alive"
    for _ in range(10):
        assert hungry.ask(hungry.keep, hungry.keep).text == "alive"
    assert platform.instances(hungry.name)[0]["id"] == before


def test_what_needs_more_than_there_is_is_told_and_replaced(hungry):
    problem = hungry.ask(1_000_000, 1_000_000)
    # A JVM ends by itself when its heap is full.
    code = "function_crashed" if hungry.runtime == "java" else "function_out_of_memory"
    assert (problem.status_code, problem.json()["code"]) == (502, code)
    assert hungry.ask(1, 1).text == "alive"
