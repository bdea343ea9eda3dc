"""A client of etcd that says what Martlet's says with a tenth of the CPU: a thousand of that one would fill a core."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from martlet.storage.etcd.answers import refused
from martlet.storage.etcd.client import Client
from martlet.store_address import EtcdAddress

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LightClient(Client):
    """See the module. It keeps its connections, and knows plain HTTP only, without a password."""

    def __init__(self, address: EtcdAddress) -> None:
        super().__init__(address)
        self._free: list[Connection] = []

    async def _post(
        self, member: str, method: str, document: Mapping[str, Any], token: str | None, timeout: float
    ) -> dict[str, Any]:
        host, _, port = member.rpartition(":")
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(host, int(port))
        body = orjson.dumps(document)
        writer.write(
            b"POST /v3/%b HTTP/1.1\r\nhost: etcd\r\ncontent-length: %d\r\n\r\n" % (method.encode(), len(body))
        )
        writer.write(body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        content = await _content(reader, head)
        self._free.append((reader, writer))
        if not head.startswith(b"http/1.1 200 "):
            raise refused(content)
        found: dict[str, Any] = orjson.loads(content.partition(b"\n")[0])
        return found

    async def close(self) -> None:
        """Lets go of the connections."""
        for _, writer in self._free:
            writer.close()
        await super().close()


async def _content(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Reads what comes behind the head of an answer."""
    _, found, length = head.partition(b"content-length:")
    if found:
        return await reader.readexactly(int(length.partition(b"\r")[0]))
    content = b""
    while size := int(await reader.readline(), 16):
        content += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return content
