"""Which node of a cluster gets a request, in simulated clusters of up to a thousand nodes."""

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.scheduling.placement import HOMES, Candidate, Need, choose_node, homes_first

GiB = 1024**3
MiB = 1024**2
RUNGS = ["process", "container", "microvm"]
LANGUAGES = ["one", "two", "three"]


def node(number, *, zones=10, **given):
    facts = {
        "zone": f"zone-{number % zones}",
        "rungs": frozenset(RUNGS),
        "runtimes": frozenset(LANGUAGES),
        "room": 100,
        "memory": 16 * GiB,
        "cpu": 8000,
        "load": 0.0,
    }
    return Candidate(name=f"node-{number}", **{**facts, **given})


def need(number=0, **given):
    facts = {"rung": "process", "runtime": "one", "memory": 128 * MiB, "cpu": 100}
    return Need(revision=f"f{number}@1", **{**facts, **given})


class Cluster:
    """Nodes that fill up as instances are placed on them."""

    def __init__(self, nodes):
        self.empty = {one.name: one for one in nodes}
        self.nodes = list(nodes)
        self._index = {one.name: index for index, one in enumerate(nodes)}
        self.placed = Counter()

    def place(self, needed, turn):
        chosen = choose_node(needed, self.nodes, turn)
        if chosen is not None:
            self.placed[chosen.name] += 1
            left = replace(
                chosen,
                room=chosen.room - 1,
                memory=chosen.memory - needed.memory,
                cpu=chosen.cpu - needed.cpu,
            )
            whole = self.empty[chosen.name].memory
            self.nodes[self._index[chosen.name]] = replace(left, load=1 - left.memory / whole)
        return chosen


THOUSAND = [node(number) for number in range(1000)]

some_nodes = st.lists(
    st.builds(
        lambda *facts: facts,
        st.sets(st.sampled_from(RUNGS)).map(frozenset),
        st.sets(st.sampled_from(LANGUAGES)).map(frozenset),
        st.integers(0, 5),
        st.integers(0, 8).map(lambda n: n * 128 * MiB),
        st.integers(0, 8).map(lambda n: n * 100),
        st.integers(0, 2),
    ),
    max_size=12,
).map(
    lambda facts: [
        node(n, zones=4, rungs=rungs, runtimes=runtimes, room=room, memory=memory, cpu=cpu, warm=warm)
        for n, (rungs, runtimes, room, memory, cpu, warm) in enumerate(facts)
    ]
)
some_needs = st.builds(
    need,
    st.integers(0, 5),
    rung=st.sampled_from(RUNGS),
    runtime=st.sampled_from(LANGUAGES),
    memory=st.sampled_from([64 * MiB, 256 * MiB]),
    cpu=st.sampled_from([0, 100, 250]),
)


@given(some_nodes, st.lists(some_needs, max_size=40))
def test_no_node_gets_what_it_has_no_room_for_and_no_room_is_overlooked(nodes, needs):
    cluster = Cluster([replace(one, warm=0) for one in nodes])
    for turn, needed in enumerate(needs):
        fitting = {one.name for one in cluster.nodes if one.offers(needed) and one.fits(needed)}
        chosen = cluster.place(needed, turn)
        assert chosen.name in fitting if chosen else not fitting
    for one in cluster.nodes:
        assert min(one.room, one.memory, one.cpu) >= 0


@given(some_nodes, some_needs, st.integers())
def test_a_warm_instance_is_used_before_another_is_started(nodes, needed, turn):
    warm = {one.name for one in nodes if one.warm and one.offers(needed)}
    chosen = choose_node(needed, nodes, turn)
    if warm:
        assert chosen.name in warm


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.integers(0, 10**9))
def test_of_a_thousand_nodes_one_that_leaves_moves_only_its_own(lost, seed):
    left = THOUSAND[:lost] + THOUSAND[lost + 1 :]
    for number in range(seed, seed + 30):
        before = [one.name for one in homes_first(need(number), THOUSAND)[:HOMES]]
        after = [one.name for one in homes_first(need(number), left)[:HOMES]]
        kept = [name for name in before if name != f"node-{lost}"]
        assert [name for name in after if name in before] == kept


def test_a_node_that_leaves_is_followed_by_one_other():
    needed = need(7)
    homes = homes_first(needed, THOUSAND)[:HOMES]
    after = homes_first(needed, [one for one in THOUSAND if one is not homes[1]])[:HOMES]
    assert len({one.name for one in after} & {one.name for one in homes}) == HOMES - 1


@given(st.integers(0, 10**9), st.integers(1, 6), st.integers(1, 40))
def test_homes_are_in_different_zones_as_far_as_there_are_some(number, zones, count):
    nodes = [node(each, zones=zones) for each in range(count)]
    homes = homes_first(need(number), nodes)[:HOMES]
    assert len({one.zone for one in homes}) == min(HOMES, zones, count)
    assert sorted(one.name for one in homes_first(need(number), nodes)) == sorted(one.name for one in nodes)


@given(st.integers(0, 10**9), st.integers(2, 30))
def test_how_full_nodes_are_does_not_move_homes(number, count):
    nodes = [node(each) for each in range(count)]
    full = [replace(one, room=0, load=1.0) for one in nodes[::2]] + nodes[1::2]
    names = [[one.name for one in homes_first(need(number), each)] for each in (nodes, full)]
    assert names[0] == names[1]


def test_thousands_of_functions_are_spread_evenly_over_a_thousand_nodes():
    cluster = Cluster(THOUSAND)
    for number in range(1500):
        cluster.place(need(number), number)
    assert sum(cluster.placed.values()) == 1500
    assert max(cluster.placed.values()) <= 5  # 6 where only one node is drawn


def test_a_busy_function_fills_its_homes_evenly_and_only_then_goes_elsewhere():
    nodes = [node(number, room=10) for number in range(20)]
    needed = need(3)
    homes = {one.name for one in homes_first(needed, nodes)[:HOMES]}
    cluster = Cluster(nodes)
    for turn in range(10 * HOMES):
        cluster.place(needed, turn)
        counts = [cluster.placed[name] for name in homes]
        assert max(counts) - min(counts) <= 3
    assert cluster.placed.keys() == homes
    assert cluster.place(needed, 0).name not in homes


def test_the_less_loaded_of_two_is_taken():
    random = Random(1)
    nodes = [node(number, load=random.random(), warm=1) for number in range(50)]
    loads = [choose_node(need(), nodes, turn).load for turn in range(500)]
    assert sum(loads) / len(loads) < sum(one.load for one in nodes) / len(nodes)
    assert len(set(loads)) > 20, "all went to the same few"
