"""A crowd: many clients who ask a function that runs nowhere for the first time, all at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.system.conftest import Platform, until

MANY = 1000
SECONDS = 100.0
"""How long the slowest of a crowd may wait for its answer."""
STARTS = """
import asyncio, uuid
print("starts")
ME = uuid.uuid4().hex.encode()
running = 0
async def app(scope, receive, send):
    global running
    if scope["type"] != "http":
        return
    running += 1
    headers = [(b"x-instance", ME), (b"x-running", b"%d" % running)]
    await asyncio.sleep(SECONDS)
    running -= 1
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"done"})
"""
"""A function that runs for SECONDS and says how many requests its instance runs at once. It lets `starts` count its
instances: each loads this, since ASGI is not forked."""


@dataclass(frozen=True)
class Answered:
    """What came of a crowd.

    Attributes:
        statuses: how often each status came; what broke off without one is 0.
        instances: who has answered.
        at_once: the most requests that one of them has run at a time.
    """

    statuses: Counter[int]
    instances: set[str]
    at_once: int


def deploy_cold(platform: Platform, name: str, seconds: float, **config: int) -> None:
    """Deploys the function that counts its starts, and ends the instance that its deploy has tried it on."""
    code = STARTS.replace("SECONDS", repr(seconds))
    platform.deploy(name, code, handler="app", max_queue=MANY, **config)
    for instance in until(lambda: platform.instances(name), why="the deploy has left no instance"):
        assert platform.client.delete(f"/instances/{instance['id']}").status_code == 204
    until(lambda: not platform.instances(name), why="the instance of the deploy does not end")


def starts(platforms: Iterable[Platform], name: str) -> int:
    """Returns how many instances of a function were ever started, but for the one of its deploy."""
    found = 0
    for platform in platforms:
        for file in (platform.data / "logs" / name).glob("*.jsonl*"):
            for line in file.read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    found += json.loads(line)["message"] == "starts"
    return found - 1


def ask_at_once(platforms: Sequence[Platform], name: str, count: int = MANY) -> Answered:
    """Sends a function so many requests, each on a connection of its own, through platforms in turn; all connections
    are open before the first request is sent."""
    return asyncio.run(_ask([platforms[number % len(platforms)] for number in range(count)], name))


async def _ask(platforms: Sequence[Platform], name: str) -> Answered:
    clients = [await asyncio.open_connection(*_address(platform)) for platform in platforms]
    async with asyncio.timeout(SECONDS):
        for platform, (_, writer) in zip(platforms, clients, strict=True):
            key = platform.client.headers["authorization"]
            writer.write(
                f"POST /invoke/{name} HTTP/1.1\r\nhost: crowd\r\nauthorization: {key}\r\n"
                "content-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        answers = await asyncio.gather(*(_answer(reader) for reader, _ in clients))
    for _, writer in clients:
        writer.close()
    return Answered(
        Counter(status for status, _ in answers),
        {headers["x-instance"] for _, headers in answers if "x-instance" in headers},
        max(int(headers.get("x-running", 0)) for _, headers in answers),
    )


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Returns status and headers of an answer; status 0 where there is none."""
    try:
        head, *_ = (await reader.read(-1)).decode().partition("\r\n\r\n")
    except ConnectionError:
        head = ""
    line, *fields = head.split("\r\n")
    return int(line.split()[1]) if line else 0, dict(field.lower().split(": ", 1) for field in fields)


def _address(platform: Platform) -> tuple[str, int]:
    address = urlsplit(platform.url)
    assert address.hostname
    assert address.port
    return address.hostname, address.port
