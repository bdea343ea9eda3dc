"""What the control that leads does for all."""

import pytest

from martlet.control.declared import Declared
from martlet.control.duties import Duties
from martlet.control.leadership import Alone, Election
from tests.unit.control.conftest import Platform

pytestmark = pytest.mark.anyio


def duties(platform: Platform, leadership: Alone | Election) -> Duties:
    """Returns duties over a platform's control."""
    control = platform.control
    return Duties(
        leadership,
        platform.store,
        control.view,
        control.queue,
        control.garbage,
        control.shelves,
        Declared({}, control.deployments),
    )


async def test_a_control_that_leads_no_more_removes_nothing(platform: Platform) -> None:
    """What seems to be garbage may be the beginning of what the new leader lets be deployed."""
    made = await platform.create()
    revision = platform.control.view.revisions["hello", made["latest"]]
    orphan = revision.model_copy(update={"function": "orphan"})
    await platform.control.view.catch_up(await platform.control.registry.put_revision(orphan))
    deposed = Election(platform.store, "another")
    await duties(platform, deposed)._recover()
    assert ("orphan", orphan.number) in platform.control.view.revisions
    await duties(platform, Alone(""))._recover()
    await platform.control.view.catch_up(await platform.store.revision())
    assert ("orphan", orphan.number) not in platform.control.view.revisions
