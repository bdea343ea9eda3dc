"""Machines are drained, restarted, upgraded and full under load, and no request is lost or run twice."""

import json
import secrets
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from martlet import __version__
from tests.cluster.conftest import PORT, Machine, Machines
from tests.newer import VERSION, install
from tests.system.conftest import STOP_TIMEOUT, plain_client, until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

COUNTED = """
import time
def handle(request):
    print("runs")
    time.sleep(float(request.query_params.get("seconds", 0.01)))
    return request.get_header("x-request-id")
"""
"""What it prints says how often each request was run (`runs`)."""
TALK = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (said := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": said["text"][::-1]})
"""
CLIENTS = 3
PAUSE = 0.1
"""Seconds that a client waits between requests: without, they take the test's machine for themselves."""
LOOK = 0.2
"""Seconds between two looks of the load balancer at a machine; a machine that stops gives it ten times that."""


class Load:
    """Clients behind a load balancer: it sends requests, one after the other for each, to machines that are ready.

    Attributes:
        answers: how often each status came; what broke off, or found nobody, is 0.
        faults: what went wrong, in words.
        requests: the ids of all.
        answered: of those that the function answered.
    """

    def __init__(self, machines: Machines, function: str) -> None:
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.answered: list[str] = []
        self._machines, self._path = machines.all, f"/invoke/{function}"
        self._ready = list(machines.all)
        self._turns = count()
        self._name = secrets.token_hex(4)
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._balance, args=(each,)) for each in machines.all]
        self._threads += [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hangs"

    def goes_on(self, requests: int = 30) -> None:
        """Waits until so many more are answered."""
        wanted = self.answers[200] + requests
        until(lambda: self.answers[200] >= wanted, why=f"nobody is served: {self.answers}")

    def left(self, machine: Machine) -> bool:
        """Whether the balancer sends a machine nothing."""
        return machine not in self._ready

    def check(self, what: str) -> None:
        """Nothing was lost, and nothing run twice; says how much there was."""
        function = self._path.rpartition("/")[2]

        def told() -> bool:
            ran = runs(self._machines, function)
            return all(ran[name] for name in self.answered)

        until(told, why="what was answered has left no line in the log")
        ran = runs(self._machines, function)
        twice = sum(ran[name] > 1 for name in self.requests)
        lost = self.answers.total() - self.answers[200]
        print(f"{what}: sent {len(self.requests)}, lost {lost}, run twice {twice}")
        assert (lost, twice) == (0, 0), self.faults

    def _balance(self, machine: Machine) -> None:
        """Looks at one machine: no other is seen late because this one is busy."""
        with plain_client(machine.url, timeout=10) as client:
            while not self._ends.wait(LOOK):
                ready = False
                with suppress(httpx2.TransportError):
                    ready = client.get("/ready").status_code == 200
                if ready and machine not in self._ready:
                    self._ready.append(machine)
                elif not ready and machine in self._ready:
                    self._ready.remove(machine)

    def _ask(self) -> None:
        key = {"authorization": self._machines[0].client.headers["authorization"]}
        clients = {machine: plain_client(machine.url, headers=key) for machine in self._machines}
        while not self._ends.is_set():
            turn = next(self._turns)
            ready = tuple(self._ready)
            name = f"{self._name}-{turn}"
            self.requests.append(name)
            machine = ready[turn % len(ready)] if ready else self._machines[0]
            try:
                answer = clients[machine].post(self._path, headers={"x-request-id": name})
            except httpx2.TransportError as error:
                self.answers[0] += 1
                self.faults.append(f"{machine.address}: {error!r}")
            else:
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    self.answered.append(name)
                else:
                    self.faults.append(f"{machine.address}: {answer.text}")
            time.sleep(PAUSE)
        for client in clients.values():
            client.close()


def runs(machines: tuple[Machine, ...], function: str) -> Counter[str]:
    """Returns how often each request was run, by what it printed on any machine."""
    found: Counter[str] = Counter()
    for machine in machines:
        for file in (machine.data / "logs" / function).glob("*.jsonl*"):
            for line in file.read_text().splitlines():
                said = json.loads(line)
                found[said["request_id"]] += said["message"] == "runs"
    return found


def seen(machines: Machines, machine: Machine) -> dict[str, Any]:
    """Returns a machine as another one lists it."""
    asked = machines.first if machine is not machines.first else machines.second
    return asked.nodes().get(f"{machine.address}:{PORT}", {"state": "gone", "id": ""})


def restart(machines: Machines, machine: Machine) -> None:
    """Restarts a machine as systemd does, and waits until it takes requests and all know it."""
    process = machine.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT) == 0
    machine.launch()
    machine.wait_ready()
    until(
        lambda: all(knows_all(each) for each in machines.all),
        why="the machines do not find each other again",
    )


def knows_all(machine: Machine) -> bool:
    """Whether a machine lists all, and none that stops."""
    answer = machine.client.get("/nodes")  # 503 where it does not know yet that there is control again
    return (
        answer.status_code == 200
        and [each["state"] in ("ready", "draining") for each in answer.json()] == [True] * 3
    )


def test_a_drained_machine_gives_its_work_to_others_and_remembers_it(machines: Machines) -> None:
    machines.first.deploy("drained", COUNTED)
    machines.first.deploy("talk", TALK, handler="app", max_instances=1)
    until(lambda: machines.warm("drained") and machines.warm("talk"), why="they are warm nowhere")
    (machine,) = machines.warm("talk")
    node = seen(machines, machine)["id"]
    key = machine.client.headers["authorization"]
    with Load(machines, "drained") as load:
        address = f"ws://{machines.first.address}:{PORT}/invoke/talk"
        with connect(address, additional_headers={"authorization": key}) as talk:
            talk.send("drawer")
            assert talk.recv() == "reward"
            answer = machines.first.client.put(f"/nodes/{node}/drain")
            assert (answer.status_code, answer.json()["state"]) == (200, "draining"), answer.text
            until(
                lambda: (now := seen(machines, machine))["instances"] == 1 and "drained@1" not in now["warm"],
                why="it does not let go of what is idle",
            )
            talk.send("stressed")  # what runs there goes on
            assert talk.recv() == "desserts"
        until(lambda: seen(machines, machine)["instances"] == 0, why="it does not let go of what has ended")
        until(lambda: seen(machines, machine)["cells"] == 0, why="it keeps cells")
        load.goes_on()
        assert machine.invoke("drained").status_code == 200  # its own gateway sends it to another
        assert not seen(machines, machine)["instances"]
        restart(machines, machine)
        assert seen(machines, machine)["state"] == "draining"
        load.goes_on()
        assert machines.first.client.delete(f"/nodes/{node}/drain").status_code == 204
        until(lambda: seen(machines, machine)["cells"], why="it makes no cells")
    load.check("drained under load")


def test_machines_are_restarted_one_after_the_other_and_nothing_is_lost(machines: Machines) -> None:
    machines.first.deploy("upgraded", COUNTED)
    with Load(machines, "upgraded") as load:
        for machine in machines.all:
            long = Long(machines, machine, "upgraded")
            restart(machines, machine)
            # It was sent before, and took longer than the notice and the time that an interrupted lane waits.
            assert long.answer().status_code == 200
            until(lambda each=machine: not load.left(each), why="the balancer does not see that it is back")
            load.goes_on()
    load.check("restarted under load, each of three")


def test_machines_of_two_versions_work_together_while_one_after_the_other_is_upgraded(
    machines: Machines, tmp_path: Path
) -> None:
    """What the newer version writes, and says to others, has members in all places that the older does not know."""
    newer = str(install(tmp_path))
    before = {machine: dict(machine.environment or {}) for machine in machines.all}
    machines.first.deploy("mixed", COUNTED)
    try:
        with Load(machines, "mixed") as load:
            for number, machine in enumerate(machines.all, 1):
                machine.environment = {**before[machine], "PYTHONPATH": newer}
                restart(machines, machine)
                listed = Counter(each["version"] for each in machines.second.client.get("/nodes").json())
                assert listed == Counter({VERSION: number, __version__: 3 - number})
                until(
                    lambda each=machine: not load.left(each), why="the balancer does not see that it is back"
                )
                load.goes_on()
                shown_by_each(machines, f"of-{number}")
        load.check("upgraded under load, each of three")
    finally:
        for machine in machines.all:
            machine.environment = before[machine]
            restart(machines, machine)
    for machine in machines.all:  # what the newer one has left is no hindrance for the older
        assert machine.invoke("mixed").status_code == 200
    shown_by_each(machines, "again")


def shown_by_each(machines: Machines, name: str) -> None:
    """Deploys a function, and sees that all can run it, now and later, and know what it did."""
    machines.first.deploy(name, COUNTED)
    for machine in machines.all:
        assert machine.invoke(name).status_code == 200
        accepted = machine.client.post(f"/invoke/{name}", headers={"prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        path = f"/invocations/{accepted.json()['id']}"
        until(
            lambda client=machine.client, path=path: client.get(path).json()["state"] == "succeeded",
            why="what was accepted does not run",
        )
    for path in ("logs", "invocations", "scaling", "revisions"):
        until(
            lambda path=path: complete(machines.second, f"/functions/{name}/{path}"),
            why=f"not all machines answer for {path}: {machines.first.nodes()}",
        )
    assert machines.second.client.get("/builds").status_code == 200


def complete(machine: Machine, path: str) -> bool:
    """Whether what a machine answers has what all know."""
    answer = machine.client.get(path)
    return answer.status_code == 200 and "x-faas-missing" not in answer.headers


class Long:
    """A request that runs while the machine that took it is stopped."""

    def __init__(self, machines: Machines, machine: Machine, function: str) -> None:
        self._answers: list[httpx2.Response] = []
        self._machine, self._function = machine, function
        self._thread = threading.Thread(target=self._ask)
        before = sum(runs(machines.all, function).values())
        self._thread.start()
        until(lambda: sum(runs(machines.all, function).values()) > before, why="it did not begin")

    def _ask(self) -> None:
        self._answers.append(self._machine.invoke(self._function, params={"seconds": 9}))

    def answer(self) -> httpx2.Response:
        """Returns its answer."""
        self._thread.join()
        return self._answers[0]


def test_what_a_full_machine_refuses_runs_on_another(machines: Machines) -> None:
    machines.first.deploy("full", COUNTED, max_queue=0)
    until(lambda: machines.warm("full"), why="it is warm nowhere")
    threads, answers = [], []
    for _ in range(2):  # the second finds the one instance taken, and nobody has said so yet
        thread = threading.Thread(
            target=lambda: answers.append(machines.first.invoke("full", params={"seconds": 3}))
        )
        threads.append(thread)
        thread.start()
        until(lambda: sum(runs(machines.all, "full").values()) == len(threads), why="nobody runs it")
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    ran = [sum(runs((machine,), "full").values()) for machine in (machines.second, machines.third)]
    print(f"a full machine: sent 2, run on two machines {ran}")
    assert ran == [1, 1]
