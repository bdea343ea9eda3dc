"""A registry of npm packages on loopback, over TLS, with an authority of its own that vouches for it."""

import base64
import hashlib
import io
import json
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit


class Registry:
    """See the module. In use as a context.

    Attributes:
        url: its address.
        authority: the certificate of who vouches for it.

    Args:
        folder: for certificates; empty.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.pem"
        self._packages: dict[str, dict[str, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*_certificate(folder))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, name: str, version: str, files: dict[str, str]) -> None:
        """Adds a version of a package; the last one is the newest."""
        manifest = json.dumps(
            {"name": name, "version": version, **json.loads(files.get("package.json", "{}"))}
        )
        self._packages.setdefault(name, {})[version] = _tarball({**files, "package.json": manifest})

    def lock(self, name: str, version: str) -> dict[str, str]:
        """Returns what a package-lock.json says of a version."""
        dist = self._dist(name, version)
        return {"version": version, "resolved": dist["tarball"], "integrity": dist["integrity"]}

    def _dist(self, name: str, version: str) -> dict[str, str]:
        content = self._packages[name][version]
        return {
            "tarball": f"{self.url}/{name}/-/{name}-{version}.tgz",
            "shasum": hashlib.sha1(content).hexdigest(),
            "integrity": f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}",
        }

    def _document(self, name: str) -> dict[str, Any]:
        versions = {
            version: {**_manifest(content), "dist": self._dist(name, version)}
            for version, content in self._packages[name].items()
        }
        return {"name": name, "dist-tags": {"latest": [*versions][-1]}, "versions": versions}

    def _answer(self, path: str) -> bytes | None:
        name, _, tarball = unquote(urlsplit(path).path).strip("/").partition("/-/")
        if name not in self._packages:
            return None
        if tarball:
            return self._packages[name].get(tarball.removeprefix(f"{name}-").removesuffix(".tgz"))
        return json.dumps(self._document(name)).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = answer(self.path)
                self.send_response(404 if content is None else 200)
                body = content or b"{}"
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Handler


def _tarball(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mode = len(text.encode()), 0o755
            packed.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _manifest(tarball: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(tarball)) as packed:
        file = packed.extractfile("package/package.json")
        assert file is not None
        return json.load(file)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Makes an authority and, signed by it, a certificate of localhost; returns the latter and its key."""
    certificate, key = folder / "registry.pem", folder / "registry.key"
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    _openssl(authority, authority_key, "/CN=authority of a test", "basicConstraints=critical,CA:TRUE")
    signed = ("-CA", str(authority), "-CAkey", str(authority_key))
    names = ("subjectAltName=DNS:localhost,IP:127.0.0.1", "basicConstraints=CA:FALSE")
    _openssl(certificate, key, "/CN=localhost", *names, more=signed)
    return certificate, key


def _openssl(certificate: Path, key: Path, subject: str, *extensions: str, more: Sequence[str] = ()) -> None:
    kind = ("-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    added = [word for extension in extensions for word in ("-addext", extension)]
    command = ("openssl", "req", *kind, "-subj", subject, *added, *more, "-keyout", key, "-out", certificate)
    subprocess.run(command, check=True, capture_output=True)
