import os
from dataclasses import replace

import pytest

from martlet.sandbox import landlock, privileges, rehearsal
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.means import Means, Users
from martlet.sandbox.rehearsal import CALLS, LANDLOCK, rehearse
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy, Rule
from tests.alone import alone

pytestmark = pytest.mark.root

AS_ROOT = Means(confined=True, users=Users.OWN)


def as_nobody() -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def test_root_is_refused_nothing():
    assert alone(rehearse, AS_ROOT, 2_000_000_000) == {}


def test_without_rights_every_step_that_takes_them_is_refused_with_the_kernels_words():
    def attempt() -> dict[str, str]:
        as_nobody()
        return rehearse(AS_ROOT, 2_000_000_000)

    refused = alone(attempt)

    assert set(refused) == set(rehearsal.steps(AS_ROOT, 0)) - {rehearsal.PRIVILEGES, CALLS, LANDLOCK}
    assert all("not permitted" in words for words in refused.values())


def test_a_kernel_that_takes_no_filter_is_noticed():
    def without_filters() -> dict[str, str]:
        policy = Policy.load()
        rules = {name: Rule("allow", "") for name in policy.rules} | {"seccomp": Rule("absent", "")}
        privileges.forbid_new_privileges()
        Filter(replace(policy, rules=rules)).load()
        return rehearse(AS_ROOT, 2_000_000_000)

    refused = alone(without_filters)

    assert set(refused) == {CALLS}
    assert "not implemented" in refused[CALLS]


def test_a_kernel_without_landlock_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landlock, "version", lambda: 0)

    assert set(alone(rehearse, AS_ROOT, 2_000_000_000)) == {LANDLOCK}


def test_rules_that_do_not_hold_are_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Ruleset, "enforce", lambda self: None)

    assert set(alone(rehearse, AS_ROOT, 2_000_000_000)) == {LANDLOCK}


def test_a_filter_that_does_not_hold_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Filter, "load", lambda self: 0)

    assert set(alone(rehearse, AS_ROOT, 2_000_000_000)) == {CALLS}
