"""A function that is a program of its own is held as others are, and gets no hold of the warden that started it."""

from pathlib import Path

import pytest

from tests.security.conftest import GVISOR, bounded_memory, undisturbed
from tests.security.test_hostile_exhaustion import inside
from tests.system.conftest import until

REFUSED = {"EPERM", "EACCES", "ENOSYS"}
SHOWN_BY_GVISOR = {"environ", "maps", "auxv", "fd", "fd/"}
"""What its kernel lets every process of a container read of the others: names and places, no memory."""
HARMLESS_OF_GVISOR = ("ENOENT", "ENXIO", "ENODEV", "pipe:")
"""There is no such thing; what nobody can open by its name, as a socket; by what the warden wakes itself."""
NOT_WRITABLE = {"EROFS", "EACCES", "EPERM"}


@pytest.fixture(scope="module")
def program(hostile, rung):
    timeout = 60 if rung == "microvm" else 10  # an emulated processor forks slowly
    return hostile("program", runtime="http", memory="256Mi", max_instances=1, timeout=timeout)


def assert_gone(members):
    """None of these processes is left after a while."""
    until(
        lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()],
        why="processes outlive the program",
    )


def test_it_inherits_what_the_protocol_gives_and_nothing_else(program):
    assert program.attempt("inherited") == ["0", "1", "2"]


def test_it_has_no_power_and_a_filter_of_its_calls(program):
    powers = program.attempt("powers")
    assert {int(powers.pop(name), 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert powers == {"no new privileges": 1, "filters": 2}


def test_nothing_of_the_warden_can_be_opened(program, rung):
    outcomes = program.attempt("open_warden")
    opened = {name for name, said in outcomes.items() if said not in REFUSED}
    if rung == GVISOR:
        harmless = {name for name, said in outcomes.items() if said and said.startswith(HARMLESS_OF_GVISOR)}
        opened -= harmless | SHOWN_BY_GVISOR
    assert opened == set()


def test_the_warden_cannot_be_traced(program):
    for way, refused in program.attempt("trace_warden").items():
        assert refused in {"EPERM", "ENOSYS"}, way


def test_the_warden_cannot_be_ended_or_stopped(program, rung):
    program.attempt("inherited")
    before, members = program.pids, inside(program.pids)
    if rung == GVISOR:  # whose first process is like any other: its end is that of the container
        assert program.send("strike_warden").status_code == 502
        assert_gone(members)
        until(lambda: program.send("inherited").status_code == 200, why="it does not answer again")
        return
    assert program.attempt("strike_warden") == "struck"
    assert program.attempt("inherited")
    assert program.pids == before


def test_what_it_is_shown_cannot_be_written(program):
    folders = ("/", "/.runtime", "/.runtimes", "/.runtimes/http", "/function", "/usr", "/etc")
    for folder, refused in program.attempt("write", *folders).items():
        assert refused in NOT_WRITABLE, folder


def test_what_it_is_shown_leads_to_no_folder_of_the_platform(program, platform):
    run = platform.settings.run_directory
    places = [platform.data, platform.data / "martlet.db", run, run / "control.sock", platform.config]
    assert all(place.exists() for place in places)
    through = [f"{start}{place}" for place in places for start in ("", "/proc/self/root", "/.runtimes/../..")]
    assert program.attempt("seen", *through, "/.runtimes/http/start") == ["/.runtimes/http/start"]
    assert program.attempt("listing", "/.packages") == []


def test_its_limits_hold_and_cannot_be_raised(program, platform, rung):
    assert program.attempt("raise_limits") == []
    with undisturbed(platform), bounded_memory(platform):
        answer = program.send("fork_many", 5000)
    # That kernel ends where it gets no more of the machine's threads.
    if rung == GVISOR and answer.status_code == 502:
        until(lambda: program.send("inherited").status_code == 200, why="it does not answer again")
        return
    assert answer.status_code == 200, answer.text
    assert 0 < answer.json()["outcome"] < 5000


def test_too_much_memory_ends_it_alone(program, platform):
    program.attempt("inherited")
    with undisturbed(platform), bounded_memory(platform):
        assert program.send("hog").status_code in (500, 502)
        until(lambda: program.send("inherited").status_code == 200, why="it does not answer again")


def test_nothing_that_it_starts_outlives_it(program):
    program.attempt("inherited")
    members = inside(program.pids)
    assert program.send("leave_and_die").status_code == 502
    assert_gone(members)
    until(lambda: program.send("inherited").status_code == 200, why="it does not answer again")
