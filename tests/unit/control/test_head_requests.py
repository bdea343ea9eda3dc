"""HEAD, which is GET without its body."""

import asyncio

import pytest

from tests.unit.control.conftest import assert_problem

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/functions", "/functions/hello", "/openapi.json", "/functions/gone"])
async def test_head_answers_with_the_head_of_what_get_answers(platform, client, path: str):
    await platform.create()
    whole = await client.get(path)

    head = await client.head(path)

    assert head.content == b""
    assert head.status_code == whole.status_code
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]


async def test_the_head_of_a_stream_is_all_of_its_answer(platform, client):
    await platform.create()

    head = await asyncio.wait_for(client.head("/functions/hello/logs?follow=true"), 30)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_what_only_changes_things_has_no_head_and_what_is_read_says_that_it_has(client):
    refused = await client.head("/functions/hello/rollback")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    other = await client.request("PATCH", "/functions/hello")
    assert_problem(other, 405, "method_not_allowed")
    assert other.headers["allow"] == "GET, HEAD, PUT, DELETE"
