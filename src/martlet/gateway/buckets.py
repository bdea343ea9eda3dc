"""Token buckets that all lanes of a machine share, in one page of memory.

The algorithm is GCRA (ITU-T I.371): a bucket is one number, its *theoretical arrival time*. The table is a file mapped
by every lane. Lanes do not lock it: two that write one bucket in the same microsecond may let one request too many
through, which a rate limit can bear and a lock on every request cannot.
"""

from __future__ import annotations

import mmap
from hashlib import blake2b
from pathlib import Path

from martlet.units import EventRate

SLOTS = 1 << 16
SLOT = 24
PROBES = 4


def fingerprint(kind: str, name: str) -> int:
    """Returns the 63-bit name of a bucket, the same in every process."""
    return int.from_bytes(blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest(), "little") >> 1 or 1


class Buckets:
    """See the module. A slot holds a fingerprint, a time and a part; when a neighbourhood of ``PROBES`` slots is full
    of buckets in use, the one nearest to being full again gives way."""

    def __init__(self, path: Path) -> None:
        """Maps the table at ``path``, making it where there is none."""
        with path.open("a+b") as file:
            file.truncate(SLOTS * SLOT)
            self._memory = mmap.mmap(file.fileno(), SLOTS * SLOT)
        self._names = memoryview(self._memory).cast("q")
        self._times = memoryview(self._memory).cast("d")

    def take(self, bucket: int, rate: EventRate, now: float, part: float = 1.0) -> float:
        """Takes one token; a bucket holds ``rate.events`` of them and is full after ``rate.seconds``.

        A bucket whose part grows has no more tokens than before, and fills faster from then on: so what other machines
        have given out is not given out again.

        Args:
            bucket: a `fingerprint`.
            rate: it has at least one event.
            now: seconds of the clock that all lanes share (`time.monotonic`).
            part: how much of the rate, and of the tokens, is this bucket's.

        Returns:
            0.0 if there was one, else the seconds until there is.
        """
        slot = (bucket % SLOTS) * 3 + 1
        if self._names[slot - 1] != bucket:
            slot = self._slot(bucket, now, part)
        events, seconds = rate
        arrival = self._times[slot]
        if arrival < now:
            arrival = now
        before = self._times[slot + 1]
        if before != part:  # the tokens that there are stay, as far as the bucket holds them now
            arrival = max(now, now + seconds - (seconds - arrival + now) * before / part)
            self._times[slot], self._times[slot + 1] = arrival, part
        arrival += seconds / (events * part)
        wait = arrival - now - seconds
        if wait > 1e-9:
            return wait
        self._times[slot] = arrival
        return 0.0

    def _slot(self, bucket: int, now: float, part: float) -> int:
        names, times = self._names, self._times
        first = (bucket % SLOTS) * 3
        victim, least = first, float("inf")
        for probe in range(PROBES):
            slot = (first + probe * 3) % (SLOTS * 3)
            if names[slot] == bucket:
                return slot + 1
            if times[slot + 1] < least:
                victim, least = slot, times[slot + 1]
        names[victim] = bucket
        times[victim + 1], times[victim + 2] = now, part
        return victim + 1
