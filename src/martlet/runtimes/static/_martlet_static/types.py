"""The content types of files, by their names."""

from __future__ import annotations

import mimetypes

_MORE = {
    ".avif": "image/avif",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
_TEXT = ("application/json", "application/manifest+json", "application/xml", "image/svg+xml")
_types = mimetypes.MimeTypes()  # the table that Python brings, not the machine's
for _suffix, _type in _MORE.items():
    _types.add_type(_type, _suffix)


def content_type(name: str) -> str:
    """Returns the content type of a file; text is UTF-8."""
    found, encoding = _types.guess_type(name)
    if found is None or encoding is not None:
        return "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") or found in _TEXT else found
