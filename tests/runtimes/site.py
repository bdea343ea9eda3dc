"""Files over HTTP on loopback: what the registries of most languages are."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class Site:
    """See the module. In use as a context.

    Attributes:
        url: its address.
        files: content by path, as ``/go/list``. A folder among ``folders`` has the rest.
        folders: folders whose files are served, with their checksums, by the path of their top.
        asked: the paths that were asked for, in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, Path] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, path: str) -> bytes | None:
        """Returns the content of a file; None where there is none."""
        self.asked.append(path)
        if path in self.files:
            return self.files[path]
        for top, folder in self.folders.items():
            file = folder / path.removeprefix(f"{top}/")
            if path.startswith(f"{top}/") and ".." not in file.parts:
                if file.is_file():
                    return file.read_bytes()
                if file.suffix == ".sha1" and file.with_suffix("").is_file():
                    return hashlib.sha1(file.with_suffix("").read_bytes()).hexdigest().encode()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        find = self.find

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # Maven asks for a thousand small files, one after the other

            def do_GET(self) -> None:
                content = find(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("content-length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Handler
