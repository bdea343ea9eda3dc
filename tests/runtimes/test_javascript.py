"""What Node.js, Deno and Bun do with streams that are read slowly or not to their end, and with code that ends."""

import json
import re

import pytest

from tests.runtimes import build
from tests.runtimes.test_wire import CLOSE, connected, exchange, get, parts
from tests.system.conftest import until

PIECE = 65536
CODE = """
const counts = { made: 0, closed: 0, waiting: 0, aborted: 0 };

const routes = {
  '/counts': () => counts,
  '/endless': endless,
  '/waits': waits,
  '/named': named,
  '/reject': reject,
};

module.exports = (req) => routes[req.path](req);

async function* endless() {
  try {
    for (;;) {
      counts.made += 1;
      yield Buffer.alloc(65536);
      await undefined;
    }
  } finally {
    counts.closed += 1;
  }
}

async function waits({ signal }) {
  counts.waiting += 1;
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  counts.aborted += 1;
}

async function reject() {
  Promise.reject(new RangeError('which nobody awaits'));
  await new Promise(() => {});
}

async function named({ id, query }) {
  await new Promise((resolve) => setTimeout(resolve, Number(query.ms)));
  console.log(`at work on ${id}`);
  return id;
}
"""


@pytest.fixture(scope="module", params=["node", "deno", "bun"])
def function(request, tmp_path_factory):
    """A function of JavaScript: its runtime and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "handler.cjs").write_text(CODE)
    return build.find(request.param), folder


@pytest.fixture(scope="module")
def served(function, tmp_path_factory):
    """The function, which serves several requests at once, and its log."""
    log = tmp_path_factory.mktemp("log") / "log"
    with build.serving(*function, log, concurrency=8) as running:
        yield running, log


@pytest.fixture
def counts(served):
    """Asks the function what it has counted."""
    return lambda: json.loads(parts(exchange(served[0], get("/counts", CLOSE)))[1])


def test_a_stream_waits_for_its_reader_and_ends_with_it(served, counts):
    closed = counts()["closed"]
    with connected(served[0]) as peer:
        peer.sendall(get("/endless"))
        assert peer.recv(PIECE)
        until(lambda: counts()["made"] == counts()["made"], why="the stream is made though nobody reads it")
        made = counts()["made"]
        assert made < 200
        read = 0
        while read < 100 * PIECE:
            read += len(peer.recv(PIECE))
        assert counts()["made"] > made
    until(lambda: counts()["closed"] == closed + 1, why="the stream outlives its reader")


def test_a_handler_is_told_that_the_client_has_left(served, counts):
    before = counts()
    with connected(served[0]) as peer:
        peer.sendall(get("/waits"))
        until(lambda: counts()["waiting"] == before["waiting"] + 1, why="the handler was not called")
    until(lambda: counts()["aborted"] == before["aborted"] + 1, why="the handler was not told")


def test_lines_of_requests_that_run_at_once_have_their_own_ids(served):
    running, log = served
    with connected(running) as slow, connected(running) as quick:
        slow.sendall(get("/named?ms=300", "x-request-id: slow", CLOSE))
        quick.sendall(get("/named?ms=100", "x-request-id: quick", CLOSE))
        assert quick.recv(PIECE).startswith(b"HTTP/1.1 200 ")
        assert slow.recv(PIECE).startswith(b"HTTP/1.1 200 ")
    ids = re.findall(r'"id":"(\w+)","s":"stdout","m":"at work on (\w+)"', log.read_text())
    assert sorted(ids) == [("quick", "quick"), ("slow", "slow")]


def test_a_rejection_that_nobody_awaits_ends_the_process(function, tmp_path):
    log = tmp_path / "log"
    with build.serving(*function, log) as alone:
        assert exchange(alone, get("/reject")) == b""
        assert alone.process.wait(60) == 1
    assert "which nobody awaits" in log.read_text()
