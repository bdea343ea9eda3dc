"""Functions that the configuration file declares are made, and made anew where they differ."""

import asyncio
import time
from pathlib import Path

import pytest

from martlet.control import declared
from tests.unit.control.conftest import Platform, running

pytestmark = pytest.mark.anyio


async def deployed(platform: Platform, name: str, latest: int) -> dict[str, object]:
    """Waits until a revision of a function serves."""
    deadline = time.monotonic() + 60
    while True:
        answer = await platform.client.get(f"/functions/{name}")
        if answer.status_code == 200 and answer.json()["latest"] == latest:
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.01)


async def settled(platform: Platform) -> None:
    """Waits until nothing is left to deploy."""
    await asyncio.wait_for(asyncio.gather(*platform.control.duties._declared._tasks), 60)


async def test_a_declared_function_is_made_and_stays_as_it_is_on_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/handler.py").write_text("def handle(r): return 1")
    functions = {
        "inline": {"code": "def handle(r): return 0", "timeout": 5, "environment": {"DEBUG": False}},
        "folder": {"path": tmp_path / "code"},
        "file": {"path": tmp_path / "code/handler.py"},
    }
    functions["inline"]["environment"] = {"DEBUG": "false"}
    async with running(Platform(tmp_path, functions=functions)) as platform:
        made = await deployed(platform, "inline", 1)
        assert made["config"]["timeout"] == 5
        folder, file = await deployed(platform, "folder", 1), await deployed(platform, "file", 1)
        assert folder["code"] == file["code"]
        await platform.stop()
        await platform.start()
        await settled(platform)
        assert [one["latest"] for one in (await platform.client.get("/functions")).json()] == [1, 1, 1]
        (tmp_path / "code/handler.py").write_text("def handle(r): return 2")
        await platform.stop()
        await platform.start()
        await deployed(platform, "folder", 2)
        await deployed(platform, "file", 2)
        await settled(platform)
        assert (await platform.client.get("/functions/inline")).json()["latest"] == 1


async def test_a_key_that_is_declared_no_more_gets_its_default(tmp_path: Path) -> None:
    functions = {"hello": {"code": "def handle(r): return 0"}}
    async with running(Platform(tmp_path, functions=functions)) as platform:
        await deployed(platform, "hello", 1)
        await platform.client.put("/functions/hello", json={"config": {"timeout": 99}})
        await platform.stop()
        await platform.start()
        assert (await deployed(platform, "hello", 3))["config"]["timeout"] == 30


async def test_a_declared_function_without_code_is_configured_once_it_has_some(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(declared, "FIRST_RETRY", 0.05)
    async with running(Platform(tmp_path, functions={"hello": {"timeout": 5}})) as platform:
        await platform.create("hello", timeout=10)
        assert (await deployed(platform, "hello", 2))["config"]["timeout"] == 5


async def test_a_function_that_cannot_be_deployed_stops_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(declared, "FIRST_RETRY", 0.05)
    functions = {"late": {"path": tmp_path / "late"}, "fine": {"code": "def handle(r): return 0"}}
    async with running(Platform(tmp_path, functions=functions)) as platform:
        await deployed(platform, "fine", 1)
        assert (await platform.client.get("/functions/late")).status_code == 404
        (tmp_path / "late").write_text("def handle(r): return 1")
        await deployed(platform, "late", 1)
