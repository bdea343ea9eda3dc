"""What of the machine's cores a container may run on."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.driver_rigs import container_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize(("engine", "leaves"), [("crun", False), ("runc", False), ("runsc", True)])
async def test_a_container_leaves_the_core_of_its_lane_only_where_it_has_a_kernel_of_its_own(
    tmp_path: Path, engine: str, leaves: bool
):
    cores = os.sched_getaffinity(0)
    require(len(cores) > 1, "a second core")
    require(shutil.which(engine), engine)
    async with container_rig(tmp_path, engine=engine) as rig:
        os.sched_setaffinity(0, {min(cores)})
        try:
            pid = (await rig.instance("echo")).pid
        finally:
            os.sched_setaffinity(0, cores)

        assert pid is not None
        assert (len(os.sched_getaffinity(pid)) > 1) == leaves
