"""Functions on several machines: deployed through one, run by another, asked through each; and one machine dies."""

import socket
import ssl
import threading
import time
from contextlib import ExitStack

import httpx2
import pytest
from websockets.sync.client import connect

from martlet.cluster.identity import Identity
from tests.cluster.conftest import PORT, Machine, Machines
from tests.cluster.traffic import placed
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

WHO = """
import uuid
ME = str(uuid.uuid4())
def handle(request):
    return {"me": ME, "body": len(request.body)}
"""
STREAM = """
import asyncio
go_on = asyncio.Event()
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        said = await receive()
        await send({"type": "websocket.send", "text": said["text"][::-1]})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"].endswith("/go"):
        go_on.set()
    else:
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
    await send({"type": "http.response.body", "body": b"two"})
"""
SLEEP = """
import time
def handle(request):
    time.sleep(600)
"""


def test_each_machine_knows_the_others_and_what_they_do(machines: Machines) -> None:
    for machine in machines.all:
        nodes = machine.nodes()
        roles = [nodes[f"{each.address}:{PORT}"]["roles"] for each in machines.all]
        assert roles == [["gateway", "control", "builder"], ["gateway", "node"], ["gateway", "node"]]
        assert nodes[f"{machines.first.address}:{PORT}"]["runtimes"] == []


def test_the_machine_where_the_cluster_began_gets_a_new_certificate_as_the_others_do(
    machines: Machines,
) -> None:
    identity = Identity(machines.first.data)
    before, authority = identity.certificate.read_bytes(), identity.authority_key.read_bytes()
    token = machines.first.martlet("cluster", "token").strip()
    machines.first.martlet("cluster", "join", machines.first.url, token)
    assert identity.certificate.read_bytes() != before
    assert identity.authority_key.read_bytes() == authority
    identity.check()


def test_what_is_deployed_through_one_runs_once_and_answers_through_each(machines: Machines) -> None:
    machines.third.deploy("who", WHO)
    until(lambda: len(machines.warm("who")) == 1, why="nobody said that it has an instance")
    answers = [
        machine.invoke("who", content=b"x" * size, headers={"x-request-id": f"r-{size}"})
        for size in (0, 3, 5_000_000)
        for machine in machines.all
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["me"] for answer in answers}) == 1
    assert [answer.json()["body"] for answer in answers][-1] == 5_000_000
    assert {answer.headers["x-request-id"] for answer in answers} == {"r-0", "r-3", "r-5000000"}
    assert all("run;dur=" in answer.headers["server-timing"] for answer in answers)
    assert {answer.headers["x-faas-revision"] for answer in answers} == {"1"}


def test_a_response_streams_and_a_websocket_opens_across_machines(machines: Machines) -> None:
    asgi = {"handler": "app", "concurrency": 4, "max_instances": 1}
    machines.first.deploy("stream", STREAM, **asgi)
    with machines.first.client.stream("GET", "/invoke/stream/wait") as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"one"  # while the function has yet to say more
        assert machines.first.invoke("stream/go").text == "two"
        assert b"".join(pieces) == b"two"
    key = machines.first.client.headers["authorization"]
    address = f"ws://{machines.first.address}:{PORT}/invoke/stream/"
    with connect(address, additional_headers={"authorization": key}) as talk:
        talk.send("drawer")
        assert talk.recv() == "reward"


def test_time_runs_out_as_on_one_machine(machines: Machines) -> None:
    machines.first.deploy("slow", SLEEP, timeout=0.3)
    answer = machines.first.invoke("slow")
    assert (answer.status_code, answer.json()["code"]) == (504, "function_timeout")


def test_nobody_is_let_in_without_a_certificate_of_the_cluster(machines: Machines) -> None:
    nobody = ssl.create_default_context(cafile=str(Identity(machines.first.data).authority))
    nobody.check_hostname = False
    assert heard_at(machines.second.peer, nobody) == b""
    assert b"HTTP/" not in heard_at(machines.second.peer, None)
    member = Identity(machines.first.data).towards_others()
    member.check_hostname = False
    assert heard_at(machines.second.peer, member).startswith(b"HTTP/1.1 503 ")  # it has not the role control


def heard_at(peer: tuple[str, int], context: ssl.SSLContext | None) -> bytes:
    """Returns what comes back from the port for machines, until it is closed."""
    heard = b""
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(peer))
            if context is not None:
                connection = stack.enter_context(context.wrap_socket(connection))
            connection.sendall(b"GET /functions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            while piece := connection.recv(1000):
                heard += piece
    except (ssl.SSLError, ConnectionError):
        pass
    return heard


def test_a_machine_that_is_cut_off_is_not_waited_for_and_comes_back(machines: Machines) -> None:
    machines.first.deploy("held", SLEEP, max_instances=1)
    machines.first.deploy("besides", WHO)
    until(lambda: machines.warm("held"), why="it is warm nowhere")
    (cut_off,) = machines.warm("held")
    (other,) = {machines.second, machines.third} - {cut_off}
    held = Asking(machines.first, "held", once=True)
    until(lambda: [*machines.warm("held").values()] == [[1, 0]], why="it did not begin")
    with machines.cut_off(cut_off):
        until(lambda: held.answers, why="a request in flight on a machine that is cut off hangs")
        assert (held.answers[0].status_code, held.answers[0].json()["code"]) == (502, "function_crashed")
        for machine in (machines.first, other):
            assert machine.invoke("besides").status_code == 200
    until(lambda: len(machines.first.nodes()) == 3, why="it did not come back")
    until(lambda: cut_off.invoke("besides").status_code == 200, why="it does not serve")


def test_the_death_of_a_machine_costs_what_it_was_running(machines: Machines) -> None:
    dying, other = placed(machines, "lasting", max_instances=1)
    machines.first.deploy("asked", WHO)
    until(lambda: machines.warm("asked"), why="it is warm nowhere")
    lasting = Asking(machines.first, "lasting?seconds=600", once=True)
    loads = [Asking(machine, "asked") for machine in (machines.first, other)]
    until(lambda: all(len(load.answers) > 20 for load in loads), why="nobody is served")
    until(lambda: [*machines.warm("lasting").values()] == [[1, 0]], why="it did not begin")

    gone = f"{dying.address}:{PORT}"
    dying.kill()
    try:
        until(lambda: lasting.answers, why="a request in flight on the dead machine hangs")
        assert (lasting.answers[0].status_code, lasting.answers[0].json()["code"]) == (
            502,
            "function_crashed",
        )
        before = [len(load.answers) for load in loads]
        until(
            lambda: all(len(load.answers) > count + 50 for load, count in zip(loads, before, strict=True)),
            why="the others do not go on",
        )
        # They know of its death by now. Nobody else may have an instance before its lease is over: calls wait for that.
        waiting = [
            Asking(machine, "lasting", once=True) for machine in (machines.first, other) for _ in range(3)
        ]
        for load in loads:
            failed = [answer for answer in load.end() if answer.status_code != 200]
            assert len(failed) <= 1, [answer.text for answer in failed]  # the one in flight, if there was one
            assert {answer.json()["code"] for answer in failed} <= {"function_crashed"}
        other.deploy("later", WHO)
        assert other.invoke("later").status_code == 200
        assert [answer.status_code for each in waiting for answer in each.end()] == [200] * 6
        until(lambda: gone not in machines.first.nodes(), why="the dead one is still listed")
    finally:
        dying.launch()  # others need it
        until(lambda: gone in machines.first.nodes(), why="it is not back")


class Asking:
    """Somebody who asks a function through a machine, one request after the other, until one breaks off."""

    def __init__(self, machine: Machine, function: str, *, once: bool = False) -> None:
        self.answers: list[httpx2.Response] = []
        self._broke_off: httpx2.TransportError | None = None
        self._client = machine.client_for(machine.client.headers["authorization"].removeprefix("Bearer "))
        self._function = function
        self._ends = threading.Event()
        if once:
            self._ends.set()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            while True:
                self.answers.append(self._client.post(f"/invoke/{self._function}", timeout=60))
                if self._ends.is_set():
                    return
                time.sleep(0.01)
        except httpx2.TransportError as error:  # also where a test failed, and the machine is stopped
            self._broke_off = error

    def end(self) -> list[httpx2.Response]:
        """Lets the request under way be the last. Fails if one broke off."""
        self._ends.set()
        self._thread.join()
        assert self._broke_off is None, self._broke_off
        return self.answers
