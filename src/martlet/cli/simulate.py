"""``martlet simulate``: what policies of keep-alive would have cost, found out by replaying a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from martlet.cli.output import Json, show_json, show_table

BASELINE = 10
"""Minutes: how long instances are kept by default, and what all else is compared with."""
FIXED = (1, 5, BASELINE, 20, 30, 60)
HARD_HIT = 0.75


def simulate(
    trace: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder with `*_inv.csv`, `*_run.csv` and `*_mem.csv`, as of the Azure Functions trace of 2019.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Replay a trace of invocations: what keeping instances costs, for fixed times or as learned of each function.

    Prints the share of cold starts of all invocations, the share that three quarters of the functions stay below, and
    what instances take while they wait for a call; the last column compares that with instances kept for 10 minutes.
    """
    from martlet.simulation.replay import keep_for, learn, replay
    from martlet.simulation.trace import Trace

    policies = {f"fixed, {minutes} min": keep_for(minutes * 60) for minutes in FIXED}
    outcomes = replay(Trace(trace), {**policies, "learned": learn(BASELINE * 60)})
    baseline = outcomes[f"fixed, {BASELINE} min"].wasted
    found = [
        {
            "policy": name,
            "invocations": outcome.invocations,
            "cold_starts": outcome.cold_starts,
            "cold_start_rate": outcome.rate,
            "cold_start_rate_p75": outcome.rate_of_functions(HARD_HIT),
            "wasted_gb_hours": outcome.wasted / 1e3 / 3600,
            "wasted_share": outcome.wasted / baseline if baseline else None,
        }
        for name, outcome in outcomes.items()
    ]
    if as_json:
        show_json(found)
        return
    show_table(
        ("POLICY", "INVOCATIONS", "COLD", "COLD RATE", "P75 OF FUNCTIONS", "WASTED", "TO 10 MIN"),
        (
            (
                each["policy"],
                each["invocations"],
                each["cold_starts"],
                f"{each['cold_start_rate']:.4%}",
                f"{each['cold_start_rate_p75']:.1%}",
                f"{each['wasted_gb_hours']:.1f} GB·h",
                None if each["wasted_share"] is None else f"{each['wasted_share']:.1%}",
            )
            for each in found
        ),
    )
