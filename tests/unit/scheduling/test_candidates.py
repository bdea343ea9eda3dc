"""What nodes say of themselves, as placement weighs it."""

import pytest

from martlet.model import Division, ExecutionMode, FunctionConfig, Node, NodeLane, Revision
from martlet.scheduling.candidates import candidates, need_of, shares_among
from martlet.scheduling.placement import choose_node

GiB = 1024**3


def node(name, **facts):
    lanes = facts.pop("lanes", (NodeLane(name="lane-0", state="ready", instances=3, capacity=10),))
    known = {"rungs": (ExecutionMode.PROCESS,), "runtimes": ("one",), "load": 0.5, "memory_free": GiB}
    return Node(
        id=name,
        host=f"host-{name}",
        address=None,
        version="1",
        cores=2,
        memory=4 * GiB,
        lanes=lanes,
        started=0.0,
        **{"cpu_free": 500, **known, **facts},
    )


def revision(**config):
    config = FunctionConfig(**{"runtime": "one", **config})
    return Revision(function="f", number=2, config=config, code="0" * 64, created=0)


def chosen(nodes, wanted, withdrawing=(), shares=None):
    shares = shares_among(nodes, wanted, None, withdrawing) if shares is None else shares
    found = choose_node(need_of(wanted), candidates(nodes, wanted, withdrawing, shares), 1)
    return None if found is None else found.name


def test_lanes_that_are_away_have_no_room():
    lanes = [
        NodeLane(name="lane-0", state="ready", instances=3, capacity=10),
        NodeLane(name="lane-1", state="away", capacity=10),
    ]
    (found,) = candidates([node("a", lanes=tuple(lanes))], revision())
    assert (found.room, found.zone, found.warm) == (7, "host-a", 0)


@pytest.mark.parametrize(
    "config",
    [
        {"memory": "2Gi"},
        {"cpu_limit": "600m"},
        {"execution_mode": "container"},
        {"runtime": "two"},
    ],
)
def test_a_node_that_lacks_what_it_takes_is_not_chosen(config):
    assert chosen([node("a")], revision()) == "a"
    assert chosen([node("a")], revision(**config)) is None


def test_a_warm_node_is_chosen_while_it_has_a_free_slot():
    cold, warm = node("a", load=0.0), node("b", load=0.9, warm={"f@2": (1, 1)})
    assert chosen([cold, warm], revision()) == "b"
    busy = node("b", load=0.9, warm={"f@2": (1, 0)})
    assert chosen([cold, busy], revision()) == "a"


def test_where_there_are_max_instances_no_other_node_starts_one_more():
    cold = node("a", load=0.0)
    busy = [node(name, load=0.9, warm={"f@2": (2, 0)}) for name in ("b", "c")]
    assert chosen([cold, *busy], revision(max_instances=4)) in ("b", "c")
    assert chosen([cold, *busy], revision(max_instances=7)) == "a"


def test_a_node_starts_none_beyond_its_share():
    nodes = [node("a", warm={"f@2": (1, 0)}), node("b"), node("c")]
    assert chosen(nodes, revision(), shares={"a": 1, "c": 1}) == "c"
    assert chosen(nodes, revision(), shares={"a": 1}) == "a", "requests wait where there is one"
    assert chosen(nodes[1:], revision(), shares={"a": 1}) is None


def test_where_no_node_has_room_requests_wait_at_an_instance():
    full = (NodeLane(name="lane-0", state="ready", instances=10, capacity=10),)
    nodes = [node("a", warm={"f@2": (1, 0)}, lanes=full), node("b", lanes=full)]
    assert chosen(nodes, revision()) == "a"


def test_a_division_of_a_function_that_was_deleted_says_nothing_of_one_with_its_name():
    record = Division(function="f", number=2, created=0, shares={"b": 10})
    assert shares_among([node("a"), node("b")], revision(), record) == {"b": 10}
    anew = record.model_copy(update={"created": -1.0})
    assert shares_among([node("a"), node("b")], revision(), anew) == {"a": 5, "b": 5}


def test_instances_of_another_revision_count_for_nothing():
    (found,) = candidates([node("a", warm={"f@1": (1, 1)})], revision())
    assert found.warm == 0


def test_a_node_that_withdraws_is_chosen_where_no_other_can_run_it():
    warm, cold = node("a", warm={"f@2": (1, 1)}), node("b", load=0.9)
    assert chosen([warm, cold], revision(), {"a"}) == "b"
    assert chosen([warm, node("b", memory_free=0)], revision(), {"a"}) == "a"
    assert chosen([node("a"), node("b", warm={"f@2": (1, 1)})], revision(), {"a", "b"}) == "b"


def test_instances_of_a_node_that_withdraws_leave_room_for_others():
    held = node("a", warm={"f@2": (1, 0)})
    assert chosen([held, node("b")], revision(max_instances=1)) == "a"
    assert chosen([held, node("b")], revision(max_instances=1), {"a"}) == "b"


def test_where_there_are_max_instances_nodes_without_are_none_for_it():
    busy, cold = node("a", warm={"f@2": (1, 0)}), node("b")
    assert [each.name for each in candidates([busy, cold], revision(max_instances=1))] == ["a"]
