"""A whole platform as a user without any right, and what it says where it is not let."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from martlet.drivers.identities import FIRST
from tests.processes import status_of
from tests.system.conftest import START_TIMEOUT, Platform
from tests.unprivileged import USER, stage

pytestmark = pytest.mark.slow

CODE = "import os\ndef handle(request): return {'user': os.getuid(), 'body': request.get_json()}"


@pytest.fixture
def rootless() -> Iterator[Callable[..., Platform]]:
    """Makes platforms on stages: ``rootless(lent=False, process_isolation_level="relaxed")``."""
    with ExitStack() as stack:

        def make(process_isolation_level: str = "strict", **options: bool) -> Platform:
            place = stack.enter_context(stage(**options))
            system = {"process_isolation_level": process_isolation_level, "pin_lanes": False, "lanes": 1}
            platform = Platform(Path(place.folder) / "data", **system)
            platform.wrapper, platform.environment = place.command(), place.environment()
            stack.callback(platform.close)
            return platform

        yield make


def test_a_platform_without_root_deploys_and_runs_functions(rootless: Callable[..., Platform]):
    platform = rootless()
    platform.start()

    platform.deploy("echo", CODE, min_instances=1)
    answer = platform.invoke("echo", json=[1]).json()

    assert answer["body"] == [1]
    assert answer["user"] >= FIRST
    (instance,) = platform.instances("echo")
    for pid in (platform.process.pid, *platform.children().values()):
        assert status_of(pid)["Uid"].split() == [str(USER)] * 4
        assert int(status_of(pid)["CapEff"], 16) == 0
    assert int(status_of(instance["pid"])["Uid"].split()[0]) >= 2_050_000_000
    assert platform.stop() == 0
    assert "guarantee_not_held" not in platform.log()


def test_what_strict_refuses_relaxed_runs_with_and_says_so(rootless: Callable[..., Platform]):
    missing = {"lent": False, "limits": False}  # what else there is: tests/unit/drivers/test_host.py
    strict = rootless(**missing)
    strict.launch()
    assert strict.process.wait(START_TIMEOUT) == 1
    relaxed = rootless("relaxed", **missing)
    relaxed.start()

    for said in (strict.log(), relaxed.log()):
        assert "limits: missing" in said
        assert "user: weaker" in said
    relaxed.deploy("echo", CODE)
    assert relaxed.invoke("echo", json=2).json()["body"] == 2


def test_a_folder_of_sockets_that_somebody_else_made_is_refused(rootless: Callable[..., Platform]):
    platform = rootless()
    runtime = platform.data.parent / "runtime"
    (runtime / "martlet").mkdir(parents=True)
    os.chmod(runtime, 0o755)
    platform.environment = {**platform.environment, "XDG_RUNTIME_DIR": str(runtime)}

    platform.launch()

    assert platform.process.wait(START_TIMEOUT) == 1
    assert f"{runtime}/martlet must belong to the user of the platform" in " ".join(platform.log().split())
