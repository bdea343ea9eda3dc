"""An operator's own runtime, dropped in while the platform runs: the one that docs/runtimes.md shows."""

from collections.abc import Callable
from pathlib import Path

from tests.example_runtime import write_runtime
from tests.system.conftest import Platform


def test_a_runtime_that_is_dropped_in_serves_without_a_restart(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    runtimes = str(tmp_path / "runtimes")
    platform = make_platform(runtimes_path=runtimes, disable_container=True, disable_microvm=True)
    platform.start()
    try:
        known = {each["name"] for each in platform.client.get("/runtimes").json()}
        assert "template" not in known
        body = {"name": "welcome", "file": "welcome.template", "code": "Dear $name, welcome.\n"}
        refused = platform.client.post("/functions", json={**body, "config": {"runtime": "template"}})
        assert (refused.status_code, refused.json()["field"]) == (422, "config.runtime")

        write_runtime(tmp_path / "runtimes/template")

        (shown,) = [each for each in platform.client.get("/runtimes").json() if each["name"] == "template"]
        assert (shown["title"], shown["names"], shown["runs"]) == ("Text templates", ["template"], True)
        made = platform.client.post("/functions", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["config"]["runtime"] == "template"
        for _ in range(4):  # of both lanes
            assert platform.client.get("/invoke/welcome?name=Ada").text == "Dear Ada, welcome.\n"
        assert platform.client.get("/invoke/welcome").status_code == 500
    finally:
        platform.stop()
