"""The command line of QEMU: what a machine is made of."""

import pytest

from martlet.microvm import qemu


@pytest.mark.parametrize(("accelerated", "timer"), [(False, "pit=off"), (True, "pit=on")])
def test_an_emulated_machine_has_no_timer_that_nobody_listens_to(accelerated, timer):
    line = qemu.command(
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

    assert timer in line[line.index("-M") + 1].split(",")
