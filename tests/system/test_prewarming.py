"""A platform that has learned when a function is called has its instances ready ahead of the call."""

import json
import time

import pytest

from tests.system.conftest import until

pytestmark = pytest.mark.slow

HANDLER = "def handle(r):\n    return 'ready'\n"
HALF_AN_HOUR = 1800.0


def test_instances_are_back_before_the_call_that_is_due_also_after_a_restart(make_platform):
    platform = make_platform(lanes=1, keep_alive="learned", disable_container=True, disable_microvm=True)
    platform.start()
    platform.deploy("timer", HANDLER)
    platform.deploy("other", HANDLER)
    for name in ("timer", "other"):
        assert platform.invoke(name).status_code == 200
    scaling = platform.client.get("/functions/timer/scaling").json()
    assert scaling["instances"] == 1
    assert scaling["nodes"][0]["keep_alive"]["basis"] == "few"
    until(lambda: platform.client.get("/functions/timer/scaling").json()["nodes"][0]["last_used"])
    platform.stop()

    # As if it had been called each half hour, and last 28 minutes ago.
    file = platform.data / "habits-0.json"
    habits = json.loads(file.read_text())
    habits["timer"]["idle_times"]["counts"][int(HALF_AN_HOUR // 60)] = 10
    habits["timer"] |= {"used": time.time() - 28 * 60, "put_away": 1}
    file.write_text(json.dumps(habits))
    platform.start()
    until(lambda: platform.instances("timer"), why="the instance was not back")
    assert platform.instances("other") == []
    answer = platform.invoke("timer")
    assert answer.text == "ready"
    assert "load" not in answer.headers["server-timing"], "it was a cold start"
    node = platform.client.get("/functions/timer/scaling").json()["nodes"][0]
    assert node["keep_alive"]["basis"] == "histogram"
    assert node["decisions"][0]["action"] == "start"
    assert "a call is due" in node["decisions"][0]["reason"]
