"""Counts down in server-sent events: each leaves the moment it is made."""

import json
import time


def handle(request):
    start = min(int(request.query_params.get("from", 5)), 1000)
    pause = min(float(request.query_params.get("pause", 0.5)), 10)
    headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
    return countdown(start, pause), 200, headers


def countdown(start, pause):
    for number in range(start, 0, -1):
        yield event({"left": number})
        time.sleep(pause)
    yield event({"left": 0, "message": "lift-off"})


def event(data):
    return f"data: {json.dumps(data)}\n\n"
