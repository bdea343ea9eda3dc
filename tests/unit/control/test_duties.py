"""What the control that leads does for all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest

from martlet.control.declared import Declared
from martlet.control.duties import Duties
from martlet.control.leadership import Alone, Election
from martlet.control.queue import PREFIX
from martlet.model import Waiting
from tests.unit.control.conftest import HANDLER, Platform

pytestmark = pytest.mark.anyio


def duties(platform: Platform, leadership: Alone | Election) -> Duties:
    """Returns duties over a platform's control, as if what was sent could be had from every machine."""
    control = platform.control
    return Duties(
        leadership,
        platform.store,
        control.view,
        control.queue,
        control.garbage,
        control.shelves,
        control.deployments,
        Declared({}, control.deployments),
        control.uploads,
        every=0.02,
    )


@asynccontextmanager
async def led(platform: Platform) -> AsyncIterator[None]:
    """Somebody leads meanwhile who takes the platform's store for one that is shared."""
    leadership = Alone("leader")
    leadership.open(duties(platform, leadership).lead)
    yield
    await leadership.close()


async def leave(platform: Platform, node: str, function: str) -> None:
    """Leaves a deploy as a control does that is killed at it."""
    waiting = Waiting(
        build=f"b-{function}",
        node=node,
        function=function,
        kind="inline",
        file="handler.py",
        config={},
        expect="absent",
        replace=False,
        upgrade=False,
        attempts=1,
        started=1.0,
    )
    digest = sha256(waiting.build.encode()).hexdigest()
    await platform.control.registry.put_waiting(waiting)
    await platform.blobs.put(PREFIX, digest, HANDLER.encode())  # later, or it might be swept before


async def test_deploys_of_a_node_that_is_gone_are_gone_on_with(platform: Platform) -> None:
    await leave(platform, "gone", "left")
    async with asyncio.timeout(60), led(platform):
        while "left" not in platform.control.view.functions:
            await asyncio.sleep(0.01)
        while await platform.control.queue.waiting():
            await asyncio.sleep(0.01)


async def test_those_of_a_node_that_lives_are_left_to_it(platform: Platform) -> None:
    registry, node = platform.control.registry, await platform.control.machine.node()
    lease = await registry.join(600)
    written = await registry.put_node(node.model_copy(update={"id": "alive"}), lease)
    await platform.control.view.catch_up(written)
    await leave(platform, "alive", "busy")
    await leave(platform, "gone", "left")
    async with asyncio.timeout(60), led(platform):
        while "left" not in platform.control.view.functions:
            await asyncio.sleep(0.01)
    assert [each.node for each in await platform.control.queue.waiting() if each.function == "busy"] == [
        "alive"
    ]


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
