"""When further instances of a revision are forked from loaded code, instead of loading it each."""

from __future__ import annotations

WORTHWHILE = 0.02
"""Seconds of loading above which a template pays: a fork costs some milliseconds itself, and the template memory."""

FORKABLE = frozenset({"sync", "wsgi", "async"})
"""How a handler may be run whose code is loaded without being started. The lifespan of ``asgi`` begins with loading."""


def is_template_worthwhile(mode: str, load_time: float) -> bool:
    """Whether to make a template for a second instance, given how the first is run and what its code took to load.

    The second gains nothing from it, for it waits until the template has loaded the code; all others do.
    """
    return mode in FORKABLE and load_time >= WORTHWHILE
