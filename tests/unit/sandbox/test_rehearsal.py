import os
from dataclasses import replace

import pytest

from martlet.sandbox import landlock, privileges
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.rehearsal import FILTER, LANDLOCK, STEPS, rehearse
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy, Rule
from tests.alone import alone

pytestmark = pytest.mark.root


def test_root_is_refused_nothing():
    assert alone(rehearse) == {}


def test_without_rights_all_is_refused_that_takes_some_with_the_kernels_words():
    def as_nobody() -> dict[str, str]:
        os.setresuid(65534, 65534, 65534)
        return rehearse()

    refused = alone(as_nobody)

    assert set(refused) == set(STEPS) - {FILTER, LANDLOCK}
    assert all("not permitted" in words for words in refused.values())


def test_a_kernel_that_takes_no_filter_is_noticed():
    def without_filters() -> dict[str, str]:
        policy = Policy.load()
        rules = {name: Rule("allow", "") for name in policy.rules} | {"seccomp": Rule("absent", "")}
        privileges.forbid_new_privileges()
        Filter(replace(policy, rules=rules)).load()
        return rehearse()

    refused = alone(without_filters)

    assert set(refused) == {FILTER}
    assert "not implemented" in refused[FILTER]


def test_a_kernel_without_landlock_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landlock, "version", lambda: 0)

    assert set(alone(rehearse)) == {LANDLOCK}


def test_rules_that_do_not_hold_are_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Ruleset, "enforce", lambda self: None)

    assert set(alone(rehearse)) == {LANDLOCK}


def test_a_filter_that_does_not_hold_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Filter, "load", lambda self: 0)

    assert set(alone(rehearse)) == {FILTER}
