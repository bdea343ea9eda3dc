"""What a lane says that it holds."""

import pytest

from tests.unit.node.test_keeping import Lane

pytestmark = pytest.mark.anyio


async def test_those_who_wait_for_an_instance_are_counted_by_function(tmp_path):
    async with Lane(tmp_path) as lane:
        pool = await lane.deploy()
        pool.waiting.extend([None, None])
        assert lane.node.stats()["waiting"] == {"f": 2}
        pool.waiting.clear()
        assert lane.node.stats()["waiting"] == {"f": 0}
