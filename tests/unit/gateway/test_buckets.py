"""Token buckets in shared memory."""

import os
from time import monotonic

from martlet.gateway import buckets as module
from martlet.gateway.buckets import Buckets, fingerprint
from martlet.units import EventRate


def test_a_bucket_gives_its_count_and_then_says_when_to_come_back(tmp_path):
    now = 1000.0
    buckets, rate = Buckets(tmp_path / "b"), EventRate(5, 10)
    assert [buckets.take(7, rate, now) for _ in range(5)] == [0.0] * 5
    wait = buckets.take(7, rate, now)
    assert abs(wait - 2.0) < 1e-6
    now += wait
    assert buckets.take(7, rate, now) == 0.0
    assert buckets.take(7, rate, now) > 0
    now += 10
    assert [buckets.take(7, rate, now) for _ in range(5)] == [0.0] * 5


def test_buckets_are_apart(tmp_path):
    buckets, rate = Buckets(tmp_path / "b"), EventRate(1, 3600)
    for name in ("a", "b", "c"):
        assert buckets.take(fingerprint("client", name), rate, monotonic()) == 0.0
        assert buckets.take(fingerprint("client", name), rate, monotonic()) > 0


def test_processes_share_a_bucket(tmp_path):
    rate, now = EventRate(10, 3600), monotonic()
    ours = Buckets(tmp_path / "b")
    child = os.fork()
    if child == 0:
        theirs = Buckets(tmp_path / "b")
        os._exit(sum(theirs.take(1, rate, now) == 0.0 for _ in range(6)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    assert sum(ours.take(1, rate, now) == 0.0 for _ in range(6)) == 4


def test_more_names_than_slots_never_fail_and_never_limit_a_newcomer(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOTS", 16)
    buckets, rate = Buckets(tmp_path / "b"), EventRate(1, 3600)
    assert all(buckets.take(fingerprint("client", str(n)), rate, monotonic()) == 0.0 for n in range(1000))
