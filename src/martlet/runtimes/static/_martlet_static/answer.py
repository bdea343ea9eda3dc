"""What a request for a file is answered: conditional requests, ranges and HEAD (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from _martlet_python.http1 import Framing, Head, decode_path, header_block

from .site import File, Folder, Site
from .types import content_type

_PIECE = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_TAG = re.compile(r'(?:W/)?("[^"]*")')

Send = Callable[[bytes], None]


class Answer:
    """Answers requests with the files of a site; see `blocking.Answer`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __call__(self, head: Head, body: bytes, send: Send) -> bool:
        """Answers one request."""
        framing = Framing(head)
        if head.method not in ("GET", "HEAD"):
            _say(framing, send, 405, "this is a file: GET it", {"allow": "GET, HEAD"})
            return framing.keep_alive
        path = head.target.partition("?")[0]
        match self._site.find(decode_path(path)):
            case File() as file:
                _send(framing, send, head, file)
            case Folder(name):
                # Relative, because only the client knows the whole path.
                _say(framing, send, 301, "it is a folder", {"location": f"{quote(name)}/"})
            case None:
                page = self._site.missing()
                if page is None:
                    _say(framing, send, 404, "there is no such file", {})
                else:
                    _send_part(framing, send, page, 404, 0, page.size, _fields(page))
        return framing.keep_alive


def _fields(file: File) -> dict[str, str]:
    return {"content-type": content_type(file.path), "etag": file.etag, "accept-ranges": "bytes"}


def _send(framing: Framing, send: Send, head: Head, file: File) -> None:
    fields = _fields(file)
    if _knows(head.fields.get("if-none-match", ""), file.etag):
        framing.start(304, _block({"etag": file.etag}))
        send(framing.send(b"", more=False))
        return
    part = _part(head, file)
    if part is None:
        _send_part(framing, send, file, 200, 0, file.size, fields)
        return
    first, end = part
    if first >= end:
        _say(framing, send, 416, "the file has no such part", {"content-range": f"bytes */{file.size}"})
        return
    fields["content-range"] = f"bytes {first}-{end - 1}/{file.size}"
    _send_part(framing, send, file, 206, first, end, fields)


def _knows(sent: str, etag: str) -> bool:
    return sent.strip() == "*" or etag in _TAG.findall(sent)


def _part(head: Head, file: File) -> tuple[int, int] | None:
    """Returns where the wanted range begins and ends; None for all of the file, as also for several ranges at once."""
    wanted = _RANGE.fullmatch(head.fields.get("range", "").strip())
    if wanted is None or head.method != "GET" or head.fields.get("if-range", file.etag) != file.etag:
        return None
    first, last = wanted.groups()
    if first:
        return int(first), min(int(last) + 1 if last else file.size, file.size)
    return (max(file.size - int(last), 0), file.size) if last else None


def _send_part(
    framing: Framing, send: Send, file: File, status: int, first: int, end: int, fields: dict[str, str]
) -> None:
    framing.start(status, _block(fields), end - first)
    left = end - first
    with open(file.path, "rb") as opened:
        opened.seek(first)
        while True:
            piece = opened.read(min(left, _PIECE))
            left -= len(piece)
            send(framing.send(piece, more=left > 0))
            if not left:
                return


def _say(framing: Framing, send: Send, status: int, text: str, fields: dict[str, str]) -> None:
    framing.start(status, _block({"content-type": "text/plain; charset=utf-8", **fields}))
    send(framing.send(text.encode(), more=False))


def _block(fields: dict[str, str]) -> bytes:
    block: bytes = header_block((name.encode(), value.encode("latin-1")) for name, value in fields.items())[0]
    return block
