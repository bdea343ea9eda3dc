"""Answers piece by piece: each piece is sent as soon as it is there."""

import time


def handle(request):
    """Counts to ``?to=`` (5 by default), one number a line, four a second."""
    for number in range(1, int(request.query_params.get("to", "5")) + 1):
        yield f"{number}\n"
        time.sleep(0.25)
