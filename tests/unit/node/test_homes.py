"""Who is at home to a revision: whoever needed an instance first, as long as somebody holds one."""

import asyncio
import os
import signal
from time import monotonic_ns

import pytest

from martlet.node.allowance import Allowance
from martlet.node.homes import Homes
from martlet.scheduling.placement import Placement, ranking
from tests.unit.node.test_allowance import Lane, revision


@pytest.fixture
def homes(tmp_path):
    """Those of three lanes."""
    lanes = [Homes(number, tmp_path) for number in range(3)]
    yield lanes
    for lane in lanes:
        lane.close()


def test_the_first_to_take_a_place_has_it_and_all_know(homes):
    assert [lane.holder("f@1") for lane in homes] == [None] * 3
    assert homes[2].take("f@1") == 2
    assert [lane.take("f@1") for lane in homes] == [2, 2, 2]
    assert [lane.holder("f@1") for lane in homes] == [2, 2, 2]
    assert [lane.taken for lane in homes] == [[], [], ["f@1"]]


def test_a_place_that_was_left_is_free_and_one_of_another_lane_is_not_left(homes):
    homes[1].take("f@1")
    homes[0].leave("f@1")
    assert homes[0].holder("f@1") == 1
    homes[1].leave("f@1")
    assert homes[1].holder("f@1") is None
    assert homes[0].take("f@1") == 0


def test_places_of_many_revisions_are_apart(homes):
    revisions = [f"f{number}@1" for number in range(2000)]
    for number, each in enumerate(revisions):
        assert homes[number % 3].take(each) == number % 3
    assert [homes[0].holder(each) for each in revisions] == [number % 3 for number in range(2000)]
    homes[1].leave("f1@1")
    assert [homes[0].holder(each) for each in revisions[:3]] == [0, None, 2]


def test_who_is_killed_is_at_home_no_more(homes, tmp_path):
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        Homes(7, tmp_path).take("f@1")
        os.write(said, b".")
        signal.pause()
    os.read(ready, 1)
    assert homes[0].take("f@1") == 7
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert homes[0].take("f@1") == 0


class Shared(Lane):
    """A lane whose places are taken."""

    def __init__(self, number, folder, homes):
        super().__init__(number, 2, folder)
        self.allowance = Allowance(
            number,
            2,
            lambda n: folder / f"lane-{n}.sock",
            lambda r: (self.held.get(r, 0), self.idle),
            lambda: {r: count for r, count in self.held.items() if count},
            lambda revision: revision.config.max_instances,
            homes[number],
        )


@pytest.fixture
def lanes(tmp_path, homes):
    """Two lanes; the one that is not the first of the ranking of ``f@1`` comes first."""
    return [Shared(number, tmp_path, homes) for number in reversed(ranking("f@1", range(2)))]


@pytest.mark.anyio
async def test_the_lane_that_needs_the_first_instance_is_granted_it_unasked(lanes):
    first, other = lanes
    assert first.allowance.host("f@1") == other.number  # nobody serves: no lane could answer another
    assert await first.take(revision(max_instances=1)) is Placement.GRANT
    assert [lane.allowance.home("f@1") for lane in lanes] == [first.number] * 2
    assert [lane.allowance.host("f@1") for lane in lanes] == [first.number] * 2


@pytest.mark.anyio
async def test_the_maximum_holds_over_all_lanes_whoever_was_first(lanes):
    first, other = lanes
    wanted = revision(max_instances=3)
    async with first.serving(), other.serving():
        answers = await asyncio.gather(*(lane.take(wanted) for lane in (first, other) * 10))
    assert answers.count(Placement.GRANT) == 3
    assert first.held["f@1"] + other.held.get("f@1", 0) == 3


@pytest.mark.anyio
async def test_a_lane_stays_at_home_while_another_holds_an_instance(lanes):
    first, other = lanes
    async with first.serving(), other.serving():
        assert await first.take(revision(max_instances=2)) is Placement.GRANT
        assert await other.take(revision(max_instances=2)) is Placement.GRANT
        first.held["f@1"] = 0
        first.allowance.vacate()
        assert other.allowance.home("f@1") == first.number
        first.allowance.reported(other.number, monotonic_ns(), {})
        first.allowance.vacate()
        assert other.allowance.home("f@1") == other.number


@pytest.mark.anyio
async def test_who_asks_the_home_lane_of_a_moment_ago_is_sent_to_that_of_now(lanes):
    first, other = lanes
    assert other.allowance.home("f@1") == other.number
    first.held["f@1"] = 1  # with nothing free: of one's own there would be more
    assert first.allowance.asked("f@1", 2, at=1, held=0, max_instances=9) is Placement.FORWARD


@pytest.mark.anyio
async def test_a_home_lane_that_lives_but_does_not_answer_is_replaced(lanes):
    first, other = lanes
    assert other.allowance.home("f@1") == other.number
    assert await first.take(revision(max_instances=1)) is Placement.GRANT
    assert first.allowance.home("f@1") == first.number


@pytest.mark.anyio
async def test_of_what_is_too_many_the_home_lane_gives_up_its_own_first(lanes):
    first, other = lanes
    wanted = revision(max_instances=2)
    assert first.allowance.home("f@1") == first.number
    first.held["f@1"] = other.held["f@1"] = 2
    assert first.allowance.reported(other.number, 1, {"f@1": 2}) == {"f@1": 0}
    assert first.allowance.surplus(wanted) == 2
