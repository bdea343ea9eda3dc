"""The command line of QEMU: what a machine is made of."""

import pytest

from martlet.microvm import qemu


def line_of(*, accelerated: bool) -> list[str]:
    return qemu.command(
        "qemu",
        memory=1 << 20,
        memory_path="memory",
        root="root",
        control=3,
        channels={"control": 4},
        network=None,
        boot=None,
        accelerated=accelerated,
    )


@pytest.mark.parametrize(("accelerated", "timer"), [(False, "pit=off"), (True, "pit=on")])
def test_an_emulated_machine_has_no_timer_that_nobody_listens_to(accelerated, timer):
    line = line_of(accelerated=accelerated)

    assert timer in line[line.index("-M") + 1].split(",")


@pytest.mark.parametrize(("accelerated", "processors"), [(False, "2"), (True, "1")])
def test_an_emulated_machine_has_a_processor_for_the_agent_and_one_for_the_cell(accelerated, processors):
    line = line_of(accelerated=accelerated)

    assert line[line.index("-smp") + 1] == processors
