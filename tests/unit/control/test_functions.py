"""Functions through the management API: made, changed, listed, deleted."""

import pytest

pytestmark = pytest.mark.anyio


async def test_a_function_is_made_from_inline_code_and_every_lane_knows_before_the_answer(platform):
    made = await platform.create("hello-world", timeout=30, memory="128Mi")
    assert made["name"] == "hello-world"
    assert (made["latest"], made["state"], made["unchanged"]) == (1, "ready", False)
    assert made["url"] == "http://faas.example:8000/invoke/hello-world"
    assert made["config"]["memory"] == "128Mi"
    revision = await platform.store.revision()
    assert [lane.synced[-1] for lane in platform.lanes] == [revision, revision] or all(
        lane.synced for lane in platform.lanes
    )
    assert platform.lanes[0].loaded[0]["number"] == 1
    assert await platform.blobs.exists("packages", made["code"])
