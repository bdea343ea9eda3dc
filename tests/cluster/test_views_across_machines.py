"""What people see of several machines, as if they were one; and what is left of one that dies."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from martlet.storage.log_shelf import LogShelf
from tests.cluster.conftest import PORT, Machine, Machines
from tests.s3 import CREDENTIALS
from tests.system.conftest import STOP_TIMEOUT, until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

SAYS = """
def handle(request):
    print(request.get_text(), flush=True)
    return "said"
"""


class Says:
    """A function that says what it is told, on a machine that the test chooses."""

    def __init__(self, machines: Machines, name: str) -> None:
        self.name = name
        self.first = machines.first
        self.runners = machines.second, machines.third
        self.ids = {machine: (machine.data / "node-id").read_text() for machine in machines.all}

    def let(self, machine: Machine, words: str) -> None:
        """Lets a machine run it, as if another had sent it the request."""
        socket = machine.settings.run_directory / "lane-0.sock"
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(socket)), timeout=60) as lane:
            headers = {"x-martlet-revision": f"{self.name}@1", "x-request-id": words}
            assert lane.post("http://lane/_node/invoke/", headers=headers, content=words).text == "said"

    def logs(self) -> httpx2.Response:
        """Returns what control answers."""
        return self.first.client.get(f"/functions/{self.name}/logs", params={"tail": 1000})

    def lines(self, count: int) -> list[str]:
        """Waits for so many lines."""

        def read() -> list[str] | None:
            messages = [line["message"] for line in self.logs().json()]
            return messages if len(messages) >= count else None

        found: list[str] = until(read, why=f"there are no {count} lines")
        return found

    def stats(self) -> dict[str, Any]:
        """Returns what control has counted."""
        found: dict[str, Any] = self.first.client.get(f"/stats/functions/{self.name}").json()
        return found


@pytest.fixture
def says(machines: Machines, request: pytest.FixtureRequest) -> Iterator[Says]:
    """A function that has run nowhere; all machines live."""
    revive(machines)
    name = request.node.name.removeprefix("test_")[:40].replace("_", "-").strip("-")
    machines.first.deploy(name, SAYS)
    for machine in machines.all:
        until(
            lambda asked=machine: asked.invoke(name, content="warm").status_code == 200,
            why="not all machines know it",
        )
    yield Says(machines, name)
    machines.first.client.delete(f"/functions/{name}")


def revive(machines: Machines) -> None:
    """Starts the machines that another test has killed."""
    for machine in machines.all:
        if machine.process is None:
            machine.launch()
    until(lambda: len(machines.first.nodes()) == 3, why="a machine did not come back")


def test_logs_of_all_machines_are_in_the_order_of_time(says: Says) -> None:
    said = [f"line-{number}" for number in range(6)]
    for number, words in enumerate(said):
        says.let(says.runners[number % 2], words)
    assert [line for line in says.lines(6 + 3) if line != "warm"] == said
    one = says.first.client.get(f"/functions/{says.name}/logs", params={"request_id": "line-3"}).json()
    assert [line["message"] for line in one] == ["line-3"]
    assert "x-faas-missing" not in says.logs().headers


@contextmanager
def following(says: Says) -> Iterator[Iterator[str]]:
    """Follows the logs from their end on."""
    query = {"follow": 1, "tail": 0}
    with says.first.client.stream("GET", f"/functions/{says.name}/logs", params=query) as answer:
        lines = answer.iter_lines()
        events = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
        yield (event["message"] for event in events if "message" in event)


def test_logs_of_all_machines_are_followed(says: Says) -> None:
    says.lines(3)
    with following(says) as lines:
        for number in range(4):
            says.let(says.runners[number % 2], f"line-{number}")
        assert [next(lines) for _ in range(4)] == [f"line-{number}" for number in range(4)]


def test_counts_of_all_machines_add_up_and_invocations_are_listed_together(says: Says) -> None:
    before = says.stats()["requests"]
    for number in range(5):
        says.let(says.runners[number % 2], f"r-{number}")
    found = says.stats()
    assert (found["requests"], found["missing"]) == (before + 5, [])
    assert sum(found["statuses"].values()) == before + 5
    listed = says.first.client.get(f"/functions/{says.name}/invocations").json()
    assert [run["id"] for run in listed][:5] == [f"r-{number}" for number in range(4, -1, -1)]
    # Each machine tells Prometheus of itself, also one that has not the role control.
    counted = []
    for machine in says.runners:
        told = machine.client.get("/metrics").text.splitlines()
        of_it = [line for line in told if line.startswith("martlet_requests_total") and says.name in line]
        counted += [float(line.split()[-1]) for line in of_it]
    assert len(counted) == 2
    assert sum(counted) == before + 5


def test_instances_of_all_machines_are_listed_and_stopped_where_they_are(says: Says) -> None:
    for machine in says.runners:
        says.let(machine, "start")
    found = says.first.instances(says.name)
    assert {one["node"] for one in found} == {f"{says.ids[each]}/lane-0" for each in says.runners}
    (stopped,) = [one["id"] for one in found if one["node"].startswith(says.ids[says.runners[1]])]
    assert says.runners[0].client.delete(f"/instances/{stopped}").status_code == 204
    assert stopped not in [one["id"] for one in says.first.instances(says.name)]
    assert says.first.client.delete(f"/instances/{stopped}").status_code == 404


def test_what_machines_know_of_a_function_goes_with_it(says: Says) -> None:
    for machine in says.runners:
        says.let(machine, "old")
    says.lines(2)
    assert says.first.client.delete(f"/functions/{says.name}").status_code == 204
    until(
        lambda: not any((machine.data / "logs" / says.name).exists() for machine in says.runners),
        why="logs of a deleted function are left",
    )


def test_a_machine_that_is_silent_is_named(machines: Machines, says: Says) -> None:
    for machine in says.runners:
        says.let(machine, "heard")
    silent = says.runners[1]
    with machines.cut_off(silent):
        answer = says.logs()
        assert answer.headers["x-faas-missing"] == says.ids[silent]
        assert "heard" in [line["message"] for line in answer.json()]
        assert says.stats()["missing"] == [says.ids[silent]]
    until(lambda: "x-faas-missing" not in says.logs().headers, why="it is not heard again")
    until(lambda: f"{silent.address}:{PORT}" in machines.first.nodes(), why="it is not listed")


def test_what_a_machine_has_printed_that_stops_meanwhile_is_still_read(
    machines: Machines, says: Says
) -> None:
    stopping, other = says.runners
    with following(says) as lines:
        says.let(stopping, "last words")
        assert next(lines) == "last words"
        assert stopping.process is not None
        stopping.process.terminate()
        assert stopping.process.wait(STOP_TIMEOUT) == 0
        stopping.process = None
        says.let(other, "others")
        assert next(lines) == "others"
    assert "last words" in [line["message"] for line in says.logs().json()]
    revive(machines)


def shipped(says: Says, words: str) -> bool:
    """Whether a line and an invocation of it are where they outlive the machine."""
    bucket = says.first.settings.system.log_store
    assert bucket is not None

    async def read() -> list[bytes]:
        shelf = LogShelf.of(bucket)
        return [await shelf.get(each) for each in await shelf.list(says.name)]

    return sum(words.encode() in document for document in asyncio.run(read())) == 2


def test_logs_and_invocations_outlive_the_machine_that_ran_them(
    machines: Machines, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    dying, other = says.runners
    says.let(dying, "remembered")
    until(lambda: shipped(says, "remembered"), why="it ships nothing")
    before = [line["message"] for line in says.logs().json()]
    dying.kill()
    says.let(other, "after")
    told = says.lines(len(before) + 1)
    assert sorted(told) == sorted([*before, "after"])  # none is missing, and none there twice
    until(lambda: "x-faas-missing" not in says.logs().headers, why="it is still waited for")
    assert sorted(says.lines(len(before) + 1)) == sorted([*before, "after"])
    listed = says.first.client.get(f"/functions/{says.name}/invocations").json()
    assert "remembered" in [run["id"] for run in listed]
    revive(machines)
    assert sorted(says.lines(len(before) + 1)) == sorted([*before, "after"])
