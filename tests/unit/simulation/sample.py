"""A trace of one day, made for tests: a few functions of every kind that real traces have."""

import csv
from random import Random

DAY = 1440


def write_trace(folder, traffic, *, minutes=DAY, run_ms=100, memory=200):
    """Writes a trace; ``traffic`` is, for each function by name, how many invocations each minute with any had."""
    with (folder / "made_inv.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["HashFunction", "HashApp", "HashOwner", *(f"minute_{n + 1}" for n in range(minutes))])
        for name, counts in traffic.items():
            rows.writerow([name, f"app-{name}", "owner", *(counts.get(n, 0) for n in range(minutes))])
    with (folder / "made_run.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["HashFunction", "HashApp", "HashOwner", "Count", "Average"])
        rows.writerows([name, f"app-{name}", "owner", 1, run_ms] for name in traffic)
    with (folder / "made_mem.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["HashApp", "HashOwner", "SampleCount", "AverageAllocatedMb"])
        rows.writerows([f"app-{name}", "owner", 1, memory] for name in traffic)
    return folder


def every(minutes, jitter=0, random=None):
    """Returns the traffic of a timer."""
    return {n + (random.randint(0, jitter) if jitter else 0): 1 for n in range(5, DAY - jitter, minutes)}


def at_random(mean, random):
    """Returns traffic whose minutes with invocations are ``mean`` minutes apart, however long ago the last was."""
    return {n: random.randint(1, 3) for n in range(DAY) if random.random() < 1 / mean}


def a_day():
    """Returns the traffic of the sample."""
    random = Random(2019)
    bursts = {n + k: 30 for n in range(20, DAY, 40) for k in range(3)}
    office = {n: random.randint(1, 5) for n in range(9 * 60, 17 * 60) if random.random() < 0.4}
    return {
        "each-minute": every(1),
        "each-5-minutes": every(5),
        "each-15-minutes": every(15),
        "each-half-hour": every(30, 2, random),
        "each-hour": every(60),
        "each-six-hours": every(360),
        "busy": dict.fromkeys(range(DAY), 600),
        "in-bursts": bursts,
        "in-office-hours": office,
        "now-and-then": at_random(20, random),
        "seldom": at_random(200, random),
        "once": {700: 1},
        "never": {},
    }
