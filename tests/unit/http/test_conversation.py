"""A connection that is asked one thing after the other, and then carries something else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from martlet.http.conversation import Conversation
from martlet.http.fetch import FetchError

pytestmark = pytest.mark.anyio

SECONDS = 20.0
MOST = 1000
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def answering(folder: Path, answer: Callable[[int], bytes]) -> AsyncIterator[list[bytes]]:
    """Listens at ``sock``, and answers the n-th request of a connection. Yields the targets that were asked for."""
    asked: list[bytes] = []
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        while head := await reader.read(65536):
            asked.append(b"%d %b" % (number, head.split()[1]))
            writer.write(answer(number))
            number += 1
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, folder / "sock"):
        yield asked
        await asyncio.gather(*connections)


async def ask(conversation: Conversation, target: str, timeout: float = SECONDS) -> tuple[int, bytes]:
    return await conversation.ask("GET", target, timeout=timeout, at_most=MOST)


async def test_one_connection_carries_all_questions(tmp_path: Path):
    async with answering(tmp_path, lambda _: GOOD) as asked:
        conversation = await Conversation.begin(tmp_path / "sock")
        answers = [await ask(conversation, target) for target in ("/a", "/b")]
        assert conversation.open
        conversation.close()

    assert answers == [(200, b"ok")] * 2
    assert asked == [b"0 /a", b"1 /b"]


async def test_it_is_over_when_the_other_end_wants_to_close(tmp_path: Path):
    async with answering(tmp_path, lambda _: GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")):
        conversation = await Conversation.begin(tmp_path / "sock")
        assert await ask(conversation, "/") == (200, b"ok")
        assert not conversation.open


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"nothing of HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000, id="too long"),
        pytest.param(GOOD[:-1], id="incomplete"),
    ],
)
async def test_what_is_no_answer_ends_it(tmp_path: Path, answer: bytes):
    async with answering(tmp_path, lambda _: answer):
        conversation = await Conversation.begin(tmp_path / "sock")
        with pytest.raises(FetchError):
            await ask(conversation, "/", timeout=SECONDS if len(answer) != len(GOOD) - 1 else 0.1)
        assert not conversation.open


async def test_a_second_answer_to_one_question_is_none(tmp_path: Path):
    async with answering(tmp_path, lambda _: GOOD + b"HTTP/1.1 200 OK\r\n"):
        conversation = await Conversation.begin(tmp_path / "sock")
        with pytest.raises(FetchError):
            await ask(conversation, "/")
        assert not conversation.open


async def test_what_nobody_has_asked_for_ends_it(tmp_path: Path):
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        writer.close()

    async with await asyncio.start_unix_server(say, tmp_path / "sock"):
        conversation = await Conversation.begin(tmp_path / "sock")
        async with asyncio.timeout(SECONDS):
            while conversation.open:
                await asyncio.sleep(0.001)


async def test_nobody_listening_is_no_answer(tmp_path: Path):
    with pytest.raises(FetchError):
        await Conversation.begin(tmp_path / "sock")


async def test_another_protocol_goes_on_with_the_connection(tmp_path: Path):
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Next(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(b"GET /next HTTP/1.1\r\n\r\n")
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            got.set_result(data)
            self.transport.abort()

    async with answering(tmp_path, lambda n: b"%d" % n if n else GOOD) as asked:
        conversation = await Conversation.begin(tmp_path / "sock")
        await ask(conversation, "/first")
        conversation.hand_over(Next())
        conversation.close()  # what was handed over stays
        async with asyncio.timeout(SECONDS):
            assert await got == b"1"

    assert asked == [b"0 /first", b"1 /next"]
