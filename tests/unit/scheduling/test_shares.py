"""How `max_instances` is divided: in simulated clusters whose nodes come, go, are cut off, and hear of it late."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from martlet.scheduling.placement import HOMES, Candidate, Need
from martlet.scheduling.shares import Report, brought_home, dealt, redivided, shares_of

NEED = Need("f@1", "process", "one", 1, 0)
ROOM = 50


def node(name, held=0, room=ROOM):
    return Candidate(
        name=name,
        zone=name,
        rungs=frozenset({"process"}),
        runtimes=frozenset({"one"}),
        room=room,
        memory=ROOM,
        cpu=0,
        load=0.0,
        held=held,
    )


def nodes(count):
    return [node(f"n{number}") for number in range(count)]


@given(st.integers(1, 40), st.integers(1, 12))
def test_without_a_record_the_homes_have_all_of_it_as_evenly_as_can_be(most, count):
    shares = shares_of(NEED, most, nodes(count), None)
    assert sum(shares.values()) == most
    assert len(shares) == min(count, HOMES, most)
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_node_that_is_full_is_no_home_but_one_that_has_instances_stays_one():
    homes = list(dealt(NEED, 9, nodes(6)))
    full = [replace(each, room=0) if each.name == homes[0] else each for each in nodes(6)]
    assert homes[0] not in dealt(NEED, 9, full)
    holding = [replace(each, held=2) if each.name == homes[0] else each for each in full]
    assert list(dealt(NEED, 9, holding)) == homes


def test_without_a_record_an_instance_stays_where_it_is():
    for name in ("n0", "n1", "n2", "n3"):
        begun = [replace(each, held=1) if each.name == name else each for each in nodes(4)]
        assert shares_of(NEED, 1, begun, None) == {name: 1}
        assert sum(shares_of(NEED, 5, begun, None).values()) == 5


def test_where_all_are_full_some_are_homes_all_the_same():
    assert sum(dealt(NEED, 9, [node(f"n{n}", room=0) for n in range(5)]).values()) == 9


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1),
    st.sets(st.sampled_from("abcdef")),
)
def test_what_a_node_had_that_is_gone_is_inherited_and_nobody_has_less_for_it(record, gone):
    most = sum(record.values())
    living = [node(name) for name in "abcdef" if name not in gone]
    shares = shares_of(NEED, most, living, record)
    assert sum(shares.values()) == (most if living else 0)
    if record.keys() - gone:
        assert all(shares[name] >= share for name, share in record.items() if name not in gone)
        assert shares.keys() <= record.keys()  # who comes anew has nothing that another may hold


def test_instances_go_to_whom_requests_wait_at_and_only_when_the_other_has_given_them_up():
    busy, quiet = Report(held=5, wanted=9, room=20), Report(held=5, wanted=1, room=20)
    first = redivided(10, {"a": 5, "b": 5}, {"a": busy, "b": quiet})
    assert first == {"a": 5, "b": 1}
    assert redivided(10, first, {"a": busy, "b": quiet}) == first  # it holds five yet
    assert redivided(10, first, {"a": busy, "b": replace(quiet, held=1)}) == {"a": 9, "b": 1}


def test_who_has_what_it_wants_keeps_what_it_does_not_use():
    reports = {"a": Report(held=1, wanted=1, room=20), "b": Report(room=20)}
    assert redivided(10, {"a": 8, "b": 2}, reports) == {"a": 8, "b": 2}


def test_a_home_that_was_not_there_gets_one_so_that_it_can_go_on_alone():
    reports = {"a": Report(held=1, wanted=1, room=50), "b": Report(room=50)}
    assert redivided(10, {"a": 10}, reports) == {"a": 9}
    assert redivided(10, {"a": 9}, reports) == {"a": 9, "b": 1}
    assert redivided(1, {"a": 1}, reports) == {"a": 1}


def test_where_all_want_more_than_there_is_each_gets_as_much():
    reports = {name: Report(held=0, wanted=100, room=200) for name in "abc"}
    assert redivided(30, {"a": 30}, reports) == {"a": 10}
    assert redivided(30, {"a": 10}, reports) == {"a": 10, "b": 10, "c": 10}


def test_min_instances_are_left_to_who_keeps_them():
    reports = {"a": Report(held=4, wanted=100, room=200), "b": Report(least=2, room=200)}
    assert redivided(10, {"a": 10}, reports) == {"a": 8}
    assert redivided(10, {"a": 8}, reports) == {"a": 8, "b": 2}


def test_a_share_that_a_full_node_cannot_use_goes_to_one_with_room():
    reports = {"a": Report(held=1, room=0), "b": Report(room=20)}
    assert redivided(10, {"a": 10}, reports) == {"a": 1}
    assert redivided(10, {"a": 1}, reports) == {"a": 1, "b": 9}


def test_who_runs_the_calls_of_others_gives_up_half_at_once_and_its_last_when_another_has_one():
    asked, runs = Report(wanted=16, room=50), Report(held=4, room=46, lent=4)
    assert redivided(4, {"b": 4}, {"a": asked, "b": runs}) == {"b": 2}
    given_up = replace(runs, held=2, lent=2)
    assert redivided(4, {"b": 2}, {"a": asked, "b": given_up}) == {"a": 2, "b": 1}
    assert redivided(4, {"a": 2, "b": 1}, {"a": asked, "b": replace(runs, held=1, lent=0)}) == {"a": 3}
    assert redivided(4, {"a": 3}, {"a": asked, "b": Report(room=50)}) == {"a": 4}


def test_the_last_instance_stays_until_another_node_may_have_one_but_not_where_it_cannot_be():
    asked = Report(wanted=9, room=50)
    assert redivided(9, {"b": 9}, {"a": asked, "b": Report(held=9)}) == {"b": 1}
    assert redivided(1, {"b": 1}, {"a": asked, "b": Report(held=1, lent=1)}) == {"b": 1}
    full = Report()
    assert redivided(1, {"b": 1}, {"a": asked, "b": full}) == {"b": 0}
    assert shares_of(NEED, 1, nodes(2), {"n1": 0}) == {"n1": 0}, "nobody takes it before all have seen that"
    assert redivided(1, {"b": 0}, {"a": asked, "b": full}) == {"a": 1}
    assert redivided(1, {"b": 1}, {"a": full, "b": full}) == {"b": 1}


def test_calls_count_where_they_came_to_as_far_as_they_could_run_there():
    calls, forwarded = {"b": 9.0, "c": 1.0}, {"b": {"a": 8.0, "c": 0.6, "gone": 0.4}}
    assert brought_home(calls, forwarded, {"a": 5, "c": 9}) == {"a": 5.0, "b": 3.4, "c": 1.6}
    assert brought_home(calls, forwarded, {}) == calls
    assert brought_home({"b": 1.0}, {"b": {"a": 2.0}}, {"a": 9}) == {"a": 1.0, "b": 0.0}
    assert brought_home(calls, {}, {"a": 9}) == calls


some_reports = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(Report, *[st.integers(0, 12)] * 3, lent=st.integers(0, 12)),
    min_size=1,
)


@given(st.integers(1, 30), some_reports, st.data())
def test_it_comes_to_rest_with_all_of_it_given_out_and_nobody_short_while_another_has_to_spare(
    most, reports, data
):
    shares, left = {}, most
    for name in reports:
        shares[name] = data.draw(st.integers(0, left))
        left -= shares[name]
    for _ in range(9):
        reports = {
            name: replace(
                each,
                held=min(each.held, shares.get(name, 0)),
                room=each.room + max(0, each.held - shares.get(name, 0)),
                lent=min(each.lent, each.held, shares.get(name, 0)),
            )
            for name, each in reports.items()
        }
        before, shares = shares, redivided(most, shares, reports)
    assert shares == before
    capacity = {name: each.held + each.room for name, each in reports.items()}
    if any(capacity.values()):  # else they stay as they are
        assert sum(shares.values()) == min(most, sum(capacity.values()))
    wants = {name: min(each.wanted, capacity[name]) for name, each in reports.items()}
    short = [name for name, want in wants.items() if shares.get(name, 0) < want]
    spare = [name for name, want in wants.items() if shares.get(name, 0) > want]
    assert most == 1 or not (short and spare)  # an only one is with nobody while it moves
    for name in short:
        assert all(shares.get(other, 0) <= shares.get(name, 0) + 1 for other in shares)


@dataclass(frozen=True)
class State:
    """What the store holds: of each node what it said last and which record it goes by; the record, and its number."""

    nodes: dict[str, tuple[Report, int]]
    record: dict[str, int]
    written: int


@dataclass
class Member:
    """A node: how far it has followed the store, the share that it knew last, and what it holds."""

    at: int
    connected: bool = True
    share: int = 0
    held: int = 0


class Cluster(RuleBasedStateMachine):
    """Nodes start whatever their shares let them. Each follows the store in its time; any of many controls leads.

    A node that is cut off stays at what it knew. When its lease has run out it is forgotten, and the others inherit:
    then there may be its share more, until it is back and all have seen that. The same holds for one that joins before
    a leader has seen that it, or whoever had a share, is gone: others have that share until they have seen that it is
    there.

    Attributes:
        given_up: what those may have that were forgotten but live, besides what others have inherited from them.
        joined: what those may have that joined, or are back, besides what others have who have not seen that yet.
    """

    MOST = 10

    def __init__(self):
        super().__init__()
        self.members = {}
        self.states = [State({}, {}, 0)]
        self.given_up = {}
        self.joined = 0

    @property
    def now(self):
        return self.states[-1]

    def write(self, **change):
        self.states.append(replace(self.now, **change))

    def look(self, name):
        """Returns the share of a node, as it knows it."""
        member = self.members[name]
        seen = self.states[member.at]
        if name in seen.nodes:  # else its lease has run out, and it goes by what it knew before
            member.share = self.share_in(seen, name)
        return member.share

    def share_in(self, state, name):
        living = [node(each, held=report.held) for each, (report, _) in state.nodes.items()]
        return shares_of(NEED, self.MOST, living, state.record).get(name, 0)

    def one(self, data, condition):
        """Draws a node."""
        names = sorted(name for name, member in self.members.items() if condition(member))
        return data.draw(st.sampled_from(names)) if names else None

    @initialize(count=st.integers(2, 4))
    def begin(self, count):
        self.write(record={f"n{number}": self.MOST // count for number in range(count)}, written=1)
        for number in range(count):
            self.join(number)
        for name, member in self.members.items():
            member.at = len(self.states) - 1
            self.look(name)
        self.joined = 0

    @rule(number=st.integers(0, 5))
    def join(self, number):
        name = f"n{number}"
        if name not in self.members:
            self.members[name] = Member(at=len(self.states))
            self.register(name, Report(room=ROOM), self.now.written)
            self.look(name)

    @rule(data=st.data())
    def hear(self, data):
        if name := self.one(data, lambda member: member.connected):
            member = self.members[name]
            member.at = data.draw(st.integers(member.at, len(self.states) - 1))
            self.look(name)

    @rule(data=st.data(), wanted=st.integers(0, 15))
    def report(self, data, wanted):
        if name := self.one(data, lambda member: member.connected):
            self.say(name, wanted)

    def say(self, name, wanted):
        member = self.members[name]
        self.register(name, Report(member.held, wanted, ROOM - member.held), self.states[member.at].written)

    def register(self, name, report, seen):
        before, record = self.now.nodes, self.now.record
        self.write(nodes={**before, name: (report, seen)})
        if name not in before:
            inherited = name in record or not record.keys() & before.keys()
            share = self.share_in(self.now, name) if inherited else 0
            self.joined += max(self.given_up.pop(name, 0), share)

    @rule(wanted=st.lists(st.integers(0, 15), min_size=6, max_size=6))
    def all_are_abreast_and_say_so(self, wanted):
        connected = sorted(name for name, member in self.members.items() if member.connected)
        for name, calls in zip(connected, wanted, strict=False):
            self.members[name].at = len(self.states) - 1
            self.say(name, calls)
        for name in connected:
            self.members[name].at = len(self.states) - 1
            self.look(name)

    @rule(data=st.data(), all_at_once=st.booleans())
    def start(self, data, all_at_once):
        for name in sorted(self.members) if all_at_once else [self.one(data, lambda _: True)]:
            if name is not None:
                self.members[name].held = max(self.members[name].held, self.look(name))

    @rule(data=st.data(), count=st.integers(1, 10))
    def finish(self, data, count):
        if name := self.one(data, lambda member: member.held > 0):
            self.members[name].held = max(0, self.members[name].held - count)

    @rule()
    def lead(self):
        nodes = self.now.nodes
        if nodes and all(seen >= self.now.written for _, seen in nodes.values()):
            reports = {name: report for name, (report, _) in sorted(nodes.items())}
            living = [node(name, held=report.held) for name, report in reports.items()]
            shares = redivided(self.MOST, shares_of(NEED, self.MOST, living, self.now.record), reports)
            if shares != self.now.record:
                self.write(record=shares, written=self.now.written + 1)

    @rule(data=st.data(), trouble=st.sampled_from(["dies", "is cut off", "is given up", "is back"]))
    def suffer(self, data, trouble):
        connected = trouble in ("dies", "is cut off")
        name = self.one(data, lambda member: member.connected is connected)
        match trouble:
            case _ if name is None:
                pass
            case "dies":
                del self.members[name]
                self.given_up.pop(name, None)
                self.forget(name)
            case "is cut off":
                self.members[name].connected = False
            case "is given up":
                self.given_up[name] = max(self.look(name), self.members[name].held)
                self.forget(name)
            case "is back":
                self.members[name].connected = True

    def forget(self, name):
        self.write(nodes={each: said for each, said in self.now.nodes.items() if each != name})

    @invariant()
    def the_maximum_holds_but_for_those_that_were_given_up(self):
        held = sum(member.held for member in self.members.values())
        assert held <= self.MOST + self.joined + sum(self.given_up.values())
        if all(
            member.at == len(self.states) - 1 and member.held <= self.look(name)
            for name, member in self.members.items()
            if name in self.now.nodes  # those who are cut off, too
        ):
            self.joined = 0


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
