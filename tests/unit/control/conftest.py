"""The management API over a store in memory, packages on disk, and lanes that are small real servers."""

import asyncio
import io
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx2
import orjson
import pytest
import structlog
from fastapi import FastAPI
from starlette.datastructures import State

from martlet.control.api import create_app
from martlet.control.control import Control
from martlet.control.lanes import Lanes
from martlet.drivers.networks import Networks
from martlet.model import Network
from martlet.runtimes.catalogue import Catalogue
from martlet.settings import Settings
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.memory_broker import MemoryBroker
from martlet.storage.registry import RegistryView
from martlet.storage.store import Store
from martlet.telemetry.stats import LaneStats

HANDLER = "def handle(request):\n    return {'hello': 'world'}\n"


@pytest.fixture(autouse=True, scope="session")
def plain_log() -> None:
    """Faults are logged without the values of every variable, which takes seconds to print."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@cache
def _shipped() -> Catalogue:
    """The runtimes of this machine: to look for them takes longer than most tests do."""
    return Catalogue.load()


@cache
def _application() -> FastAPI:
    """The application without a control: what it makes of its routes at the first requests is made once for all."""
    return create_app(cast(Control, None))


class FakeLane:
    """A lane that answers what control asks, on a unix socket, and remembers what it was asked.

    Attributes:
        loaded: the revisions that it was asked to load.
        refuse: the problem that the next loads are answered with.
        refused_runtime: loads of this runtime only are answered with it; empty: all.
        hold: loads wait for this.
        instances, invocations, scaling, lines: what it says it has.
        others: lanes of other machines that it passes requests on to, by ``<id of the machine>/<lane>``.
    """

    def __init__(self, socket: Path, number: int) -> None:
        self.socket = socket
        self.name = f"lane-{number}"
        self.loaded: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.synced: list[int] = []
        self.refuse: dict[str, Any] | None = None
        self.refused_runtime = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self.loading = asyncio.Event()
        self.instances: list[dict[str, Any]] = []
        self.invocations: list[dict[str, Any]] = []
        self.scaling: dict[str, Any] | None = None
        self.lines: list[dict[str, Any]] = []
        self.stats = LaneStats()
        self.others: dict[str, FakeLane] = {}
        self.asked_to_follow = False
        self.news = asyncio.Event()
        self.stopping = False
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.hold.set()
            for lane in (self, *self.others.values()):
                lane.stopping = True
                lane.news.set()
            await asyncio.gather(*self._serving)
            for lane in (self, *self.others.values()):
                lane.stopping, lane.news = False, asyncio.Event()
            self._server = None
            self.socket.unlink(missing_ok=True)

    def say(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.news.set()
        self.news = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            lengths = [
                line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length:")
            ]
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            self.asked.append((method, target))
            path, _, query = target.partition("?")
            _, _, noun, *rest = path.split("/")
            lane: FakeLane | None = self
            if noun == "at" and len(rest) > 2:
                machine, number, noun, *rest = rest
                lane = self.others.get(f"{machine}/{number}")
            if lane is not None and noun == "logs":
                await lane._logs(writer, dict(pair.split("=") for pair in query.split("&")))
                return
            status, answer = 503, {"code": "unavailable", "status": 503}
            if lane is not None:
                status, answer = await lane._answer(method, noun, rest, orjson.loads(body) if body else None)
            content = b"" if answer is None else orjson.dumps(answer)
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(self, method: str, noun: str, rest: list[str], document: Any) -> tuple[int, Any]:
        match method, noun:
            case "POST", "load":
                self.loaded.append(document)
                self.loading.set()
                await self.hold.wait()
                runtime = document["config"]["runtime"]
                if self.refuse is not None and self.refused_runtime in ("", runtime):
                    return self.refuse["status"], self.refuse
                return 200, {"mode": "sync", "load_ms": 1.25, "start_ms": 2.5}
            case "POST", "at":
                return 200, {"mode": "sync", "load_ms": 1.25, "start_ms": 2.5}
            case "POST", "sync":
                self.synced.append(document["revision"])
                return 204, None
            case "GET", "instances":
                return 200, self.instances
            case "DELETE", "instances":
                found = [one for one in self.instances if one["id"] == rest[0]]
                self.instances = [one for one in self.instances if one not in found]
                return (204, None) if found else (404, {"code": "not_found", "status": 404})
            case "GET", "invocations":
                return 200, self.invocations
            case "GET", "scaling":
                return 200, self.scaling
            case "GET", "stats":
                return 200, self.stats.to_json()
            case "GET", "health":
                held = {"instances": len(self.instances), "capacity": 500, "cells": 2}
                fleet = {"warm": {}, "calls": {}, "forwarded": {}, "asked": {}, "divided": 0}
                return 200, {"status": "ok", **held, "memory": 0, "cpu": 0, **fleet}
            case _:
                return 204, None

    async def _logs(self, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
        def write(line: dict[str, Any]) -> None:
            data = orjson.dumps(line) + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        seen = len(self.lines)
        past = [line for line in self.lines if line["time"] > float(query.get("since", "-inf"))]
        past = [line for line in past if query.get("request_id") in (None, line["request_id"])]
        for line in past[-int(query["tail"]) :] if int(query["tail"]) else []:
            write(line)
        await writer.drain()
        self.asked_to_follow = "follow" in query
        while query.get("follow") and not self.stopping:
            news = self.news
            for line in self.lines[seen:]:
                write(line)
            await writer.drain()
            seen = len(self.lines)
            await news.wait()
        if not self.stopping:
            writer.write(b"0\r\n\r\n")


class Platform:
    """Control with its lanes, and an HTTP client for it."""

    def __init__(self, data: Path, **system: Any) -> None:
        functions = system.pop("functions", {})
        defaults = {"function_storage_path": data / "data", "development": True}
        self.settings = Settings.model_validate({"system": {**defaults, **system}, "functions": functions})
        self.store: Store = MemoryStore()
        self.broker = MemoryBroker()
        self.blobs = Blobs.local(data / "blobs")
        self.lanes = [FakeLane(data / f"lane-{number}.sock", number) for number in range(2)]
        self.catalogue = Catalogue.of(self.settings.system) if "runtimes_path" in system else _shipped()
        self.networks = Networks(Network.NONE, {Network.HOST: "not here"})
        self.control: Control = None  # type: ignore[assignment]
        self.client: httpx2.AsyncClient = None  # type: ignore[assignment]

    async def start(self) -> None:
        """Starts control, as often as the test likes, over the same store and blobs."""
        lanes = Lanes([lane.socket for lane in self.lanes], self.settings.system.cold_start_timeout)
        self.control = Control(
            self.settings, self.store, self.blobs, lanes, self.networks, self.catalogue, self.broker
        )
        await self.control.open()
        app = copy(_application())
        app.state = State({"control": self.control})
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://faas.example:8000")

    async def stop(self) -> None:
        await self.client.aclose()
        await self.control.close()
        shutil.rmtree(self.settings.run_directory, ignore_errors=True)  # which the supervisor would do

    async def view(self) -> RegistryView:
        """Returns what the store holds now."""
        view = RegistryView(self.store)
        await view.start()
        await view.close()
        return view

    async def create(self, name: str = "hello", code: str = HANDLER, **config: Any) -> dict[str, Any]:
        answer = await self.client.post("/functions", json={"name": name, "code": code, "config": config})
        assert answer.status_code == 201, answer.text
        return answer.json()


@asynccontextmanager
async def running(platform: Platform) -> AsyncIterator[Platform]:
    """Runs the lanes and control."""
    for lane in platform.lanes:
        await lane.start()
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()
        for lane in platform.lanes:
            await lane.stop()
        await platform.store.close()


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    """A platform in development mode."""
    async with running(Platform(tmp_path)) as platform:
        yield platform


@pytest.fixture
def client(platform: Platform) -> httpx2.AsyncClient:
    """A client of the management API."""
    return platform.client


def zipped(files: dict[str, str]) -> bytes:
    """Returns a zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Checks that an answer is a problem document of this status and code; returns it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem
