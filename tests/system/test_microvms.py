"""Functions in microVMs, on a real platform: what they do in processes, they do by one word of configuration."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import MICROVMS
from tests.driver_rigs import prepare_microvms
from tests.system.conftest import until
from tests.system.test_adoption import SAYS_ITS_TOKEN, kill_lane
from tests.system.test_containers import left_of

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

TELLS = """
import os, random, socket, ssl, uuid
def handle(request):
    print("asked for", request.get_text())
    drawn = [os.urandom(8).hex(), random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()), str(uuid.uuid1())]
    kernel = os.uname()
    return {"kernel": kernel.release, "host": kernel.nodename, "uid": os.getuid(), "drawn": drawn}
"""


@pytest.fixture(scope="module")
def microvms(make_platform):
    prepare_microvms()
    platform = make_platform(lanes=1, microvm_path=str(MICROVMS), min_cells=1)
    platform.start()
    yield platform
    platform.stop()
    assert not left_of(platform)


def test_a_function_runs_in_a_machine_with_a_kernel_of_its_own(microvms):
    microvms.deploy("told", TELLS, execution_mode="microvm")

    answer = microvms.invoke("told", content="something")

    seen = answer.json()
    assert seen["kernel"].endswith("-cloud-amd64")
    assert seen["host"] == "told"
    assert seen["uid"] != 0
    (instance,) = microvms.instances("told")
    assert instance["driver"] == "microvm"
    request = answer.headers["x-request-id"]
    lines = until(
        lambda: microvms.client.get("/functions/told/logs", params={"request_id": request}).json(),
        why="no logs of the request",
    )
    assert "asked for something" in json.dumps(lines)


def test_clones_of_one_machine_draw_numbers_of_their_own(microvms):
    drawn = []
    for number in range(4):
        microvms.deploy(f"draws-{number}", TELLS, execution_mode="microvm")
        drawn.append(microvms.invoke(f"draws-{number}").json()["drawn"])
        microvms.client.delete(f"/functions/draws-{number}")

    assert [len(set(column)) for column in zip(*drawn, strict=True)] == [4] * 5


@pytest.mark.parametrize(
    ("setting", "value"), [("network", "egress"), ("memory", "1024Mi"), ("concurrency", 17)]
)
def test_what_a_microvm_does_not_have_is_refused(microvms, setting, value):
    config = {"execution_mode": "microvm", setting: value}

    refused = microvms.client.post("/functions", json={"name": "wants", "code": TELLS, "config": config})

    assert (refused.status_code, refused.json()["field"]) == (422, f"config.{setting}")


def test_a_machine_that_is_killed_is_replaced(microvms):
    microvms.deploy("killed", SAYS_ITS_TOKEN, execution_mode="microvm")
    first = microvms.invoke("killed").text
    (instance,) = microvms.instances("killed")
    (monitor,) = Path(f"/proc/{instance['pid']}/task/{instance['pid']}/children").read_text().split()

    os.kill(int(monitor), signal.SIGKILL)
    until(
        lambda: instance["id"] not in [i["id"] for i in microvms.instances("killed")],
        why="it is still there",
    )

    assert microvms.invoke("killed").text != first


def test_a_machine_outlives_its_lane(microvms):
    microvms.deploy("stays", SAYS_ITS_TOKEN, execution_mode="microvm")
    token, before = microvms.invoke("stays").text, microvms.instances("stays")

    kill_lane(microvms)

    assert microvms.invoke("stays").text == token
    assert microvms.instances("stays")[0]["pid"] == before[0]["pid"]


def test_a_killed_platform_leaves_nothing_once_the_next_one_runs(microvms):
    microvms.deploy("lost", SAYS_ITS_TOKEN, execution_mode="microvm")
    microvms.invoke("lost")
    (instance,) = microvms.instances("lost")

    for process in [microvms.process.pid, *microvms.children().values()]:
        os.kill(process, signal.SIGKILL)
    microvms.process.wait()
    microvms.start()

    assert not Path(f"/proc/{instance['pid']}").exists()
    assert microvms.invoke("lost").status_code == 200
