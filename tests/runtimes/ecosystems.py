"""Registries of languages, each in its own protocol, with one package: ``greeting`` answers with its version.

They are files on a `Site`; what is published there is found by the language's own package manager.
"""

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from tests.runtimes.site import Site

Files = dict[str, str]
PROJECT = '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
"""How a pom.xml begins."""


class Ecosystem(ABC):
    """A registry below a path of a site, and functions whose packages come from it.

    Attributes:
        runtime: of the functions.
        refusal: what its package manager says where a package is not what was published.
    """

    runtime: str
    refusal: str

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.top = f"/{name}"
        self.url = f"{site.url}{self.top}"
        self.versions: list[str] = []

    def publish(self, *versions: str) -> None:
        """Adds versions of the package."""
        self.versions += versions
        for version in versions:
            self.put(self.archive_path(version), self.archive(version, version))
        self.put_index()

    def corrupt(self, version: str) -> None:
        """Puts another package in the place of one that was published; whatever vouches for that stays."""
        self.put(self.archive_path(version), self.archive(version, "something else"))

    def put(self, path: str, content: bytes | str) -> None:
        """Puts a file below the top."""
        self.site.files[f"{self.top}/{path}"] = content.encode() if isinstance(content, str) else content

    def sha256(self, version: str) -> str:
        """Returns the checksum of a package as it was published."""
        return hashlib.sha256(self.archive(version, version)).hexdigest()

    @abstractmethod
    def archive_path(self, version: str) -> str:
        """Returns where a package lies."""

    @abstractmethod
    def archive(self, version: str, answer: str) -> bytes:
        """Returns a package which answers that."""

    @abstractmethod
    def put_index(self) -> None:
        """Writes what says which versions there are."""

    @abstractmethod
    def function(self, version: str) -> Files:
        """Returns a function that may have any version, locked to one."""

    def config(self, version: str) -> dict[str, object]:
        """Returns what its configuration says besides."""
        return {}


class Go(Ecosystem):
    """A module proxy. What is locked is what ``go.mod`` says and ``go.sum`` vouches for."""

    runtime, refusal = "go", "checksum mismatch"
    _module = "example.com/greeting"

    def archive_path(self, version: str) -> str:
        return f"{self._module}/@v/v{version}.zip"

    def archive(self, version: str, answer: str) -> bytes:
        files = {"go.mod": self._mod(), "greeting.go": _go_source(answer)}
        return _zip({f"{self._module}@v{version}/{name}": text for name, text in files.items()})

    def put_index(self) -> None:
        self.put(f"{self._module}/@v/list", "".join(f"v{version}\n" for version in self.versions))
        for version in self.versions:
            self.put(f"{self._module}/@v/v{version}.mod", self._mod())
            info = {"Version": f"v{version}", "Time": "2026-01-01T00:00:00Z"}
            self.put(f"{self._module}/@v/v{version}.info", json.dumps(info))

    def function(self, version: str) -> Files:
        mod, source = self._mod(), _go_source(version)
        sums = {
            f"v{version}": {
                f"{self._module}@v{version}/{name}": text
                for name, text in {"go.mod": mod, "greeting.go": source}.items()
            },
            f"v{version}/go.mod": {"go.mod": mod},
        }
        return {
            "handler.go": 'package function\n\nimport (\n\t"example.com/greeting"\n\t"martlet"\n)\n\n'
            "func Handle(request *martlet.Request) (any, error) { return greeting.Version(), nil }\n",
            "go.mod": f"module function\n\ngo 1.24\n\nrequire {self._module} v{version}\n",
            "go.sum": "".join(f"{self._module} {name} {_go_sum(files)}\n" for name, files in sums.items()),
        }

    def _mod(self) -> str:
        return f"module {self._module}\n\ngo 1.24\n"


class Rust(Ecosystem):
    """A sparse index, which the project's own configuration of Cargo puts in the place of crates.io."""

    runtime, refusal = "rust", "failed to verify the checksum of `greeting"

    def archive_path(self, version: str) -> str:
        return f"crates/greeting/{version}/download"

    def archive(self, version: str, answer: str) -> bytes:
        manifest = f'[package]\nname = "greeting"\nversion = "{version}"\nedition = "2021"\n'
        files = {
            "Cargo.toml": manifest,
            "src/lib.rs": f'pub fn version() -> &\'static str {{ "{answer}" }}\n',
        }
        return _tarball({f"greeting-{version}/{name}": text.encode() for name, text in files.items()})

    def put_index(self) -> None:
        self.put("config.json", json.dumps({"dl": f"{self.url}/crates"}))
        entries = [
            {
                "name": "greeting",
                "vers": version,
                "deps": [],
                "cksum": self.sha256(version),
                "features": {},
                "yanked": False,
            }
            for version in self.versions
        ]
        self.put("gr/ee/greeting", "".join(f"{json.dumps(entry)}\n" for entry in entries))

    def function(self, version: str) -> Files:
        package = f'[[package]]\nname = "greeting"\nversion = "{version}"\n'
        source = 'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        own = '[[package]]\nname = "hello"\nversion = "1.0.0"\ndependencies = ["greeting"]\n'
        return {
            ".cargo/config.toml": '[source.crates-io]\nreplace-with = "company"\n\n'
            f'[source.company]\nregistry = "sparse+{self.url}/"\n',
            "src/lib.rs": "use martlet::{Request, Response};\n\n"
            "pub fn handle(_: Request) -> Response { Response::text(greeting::version()) }\n",
            "Cargo.toml": '[package]\nname = "hello"\nversion = "1.0.0"\nedition = "2021"\n\n'
            '[dependencies]\ngreeting = "1"\n',
            "Cargo.lock": f'version = 3\n\n{package}{source}checksum = "{self.sha256(version)}"\n\n{own}',
        }


class Ruby(Ecosystem):
    """A compact index of gems, which Bundler takes for every source."""

    runtime, refusal = "ruby", "does not match the checksum"

    def archive_path(self, version: str) -> str:
        return f"gems/greeting-{version}.gem"

    def archive(self, version: str, answer: str) -> bytes:
        parts = {
            "metadata.gz": gzip.compress(_gem_specification(version).encode(), mtime=0),
            "data.tar.gz": _tarball({"lib/greeting.rb": f'GREETING = "{answer}"\n'.encode()}),
        }
        return _tarball(parts, compressed=False)

    def put_index(self) -> None:
        lines = [f"{version} |checksum:{self.sha256(version)}\n" for version in self.versions]
        info = f"---\n{''.join(lines)}"
        digest = hashlib.md5(info.encode()).hexdigest()
        self.put("info/greeting", info)
        self.put("names", "---\ngreeting\n")
        self.put(
            "versions",
            f"created_at: 2026-01-01T00:00:00Z\n---\ngreeting {','.join(self.versions)} {digest}\n",
        )

    def function(self, version: str) -> Files:
        remote = "https://gems.example"
        return {
            "handler.rb": 'require "greeting"\n\ndef handle(request) = GREETING\n',
            "Gemfile": f'source "{remote}"\n\ngem "greeting", "~> 1.0"\n',
            "Gemfile.lock": f"GEM\n  remote: {remote}/\n  specs:\n    greeting ({version})\n\n"
            "PLATFORMS\n  ruby\n\nDEPENDENCIES\n  greeting (~> 1.0)\n\nBUNDLED WITH\n   2.3.15\n",
        }


class Php(Ecosystem):
    """A repository of Composer, which the project's own ``composer.json`` names."""

    runtime, refusal = "php", "checksum verification of the file failed"

    def archive_path(self, version: str) -> str:
        return f"dist/greeting-{version}.zip"

    def archive(self, version: str, answer: str) -> bytes:
        source = f"<?php\nfunction greeting(): string {{ return '{answer}'; }}\n"
        manifest = {"name": "example/greeting", "autoload": {"files": ["greeting.php"]}}
        return _zip({"greeting.php": source, "composer.json": json.dumps(manifest)})

    def put_index(self) -> None:
        versions = {version: self._entry(version) for version in self.versions}
        self.put("packages.json", json.dumps({"packages": {"example/greeting": versions}}))

    def function(self, version: str) -> Files:
        manifest = {
            "repositories": [{"type": "composer", "url": self.url}, {"packagist.org": False}],
            "require": {"example/greeting": "^1.0"},
        }
        lock = {
            "content-hash": "0" * 32,
            "packages": [self._entry(version)],
            "packages-dev": [],
            "aliases": [],
            "minimum-stability": "stable",
            "stability-flags": [],
            "prefer-stable": False,
            "prefer-lowest": False,
            "platform": [],
            "platform-dev": [],
        }
        return {
            "handler.php": "<?php\nfunction handle($request) { return greeting(); }\n",
            "composer.json": json.dumps(manifest),
            "composer.lock": json.dumps(lock),
        }

    def _entry(self, version: str) -> dict[str, object]:
        content = self.archive(version, version)
        url = f"{self.url}/{self.archive_path(version)}"
        return {
            "name": "example/greeting",
            "version": version,
            "type": "library",
            "autoload": {"files": ["greeting.php"]},
            "dist": {"type": "zip", "url": url, "shasum": hashlib.sha1(content).hexdigest()},
        }


class Java(Ecosystem):
    """A repository of Maven, which has the plugins that Maven itself takes besides.

    Maven has no lock: a version is a lock where it is exact. The checksums are those of the repository.
    """

    runtime, refusal = "java", "Checksum validation failed"

    def __init__(self, site: Site, name: str, plugins: Path, work: Path) -> None:
        super().__init__(site, name)
        site.folders[self.top] = plugins
        self._work = work

    def archive_path(self, version: str) -> str:
        return f"example/greeting/{version}/greeting-{version}.jar"

    def archive(self, version: str, answer: str) -> bytes:
        constant, given = b"\0\6ANSWER", len(answer).to_bytes(2, "big") + answer.encode()
        return _zip({"example/Greeting.class": self._compiled.replace(constant, given)})

    @cached_property
    def _compiled(self) -> bytes:
        source = self._work / "Greeting.java"
        method = 'public static String version() { return "ANSWER"; }'
        source.write_text(f"package example;\npublic class Greeting {{ {method} }}\n")
        subprocess.run(["javac", "--release", "17", "-d", self._work, source], check=True)
        return (self._work / "example/Greeting.class").read_bytes()

    def put_index(self) -> None:
        for version in self.versions:
            pom = f"{PROJECT}{self._coordinates(version)}</project>"
            for path, content in (
                (self.archive_path(version), self.site.files[f"{self.top}/{self.archive_path(version)}"]),
                (self.archive_path(version).replace(".jar", ".pom"), pom.encode()),
            ):
                self.put(path, content)
                self.put(f"{path}.sha1", hashlib.sha1(content).hexdigest())

    def settings(self) -> str:
        """Returns a ``settings.xml`` that lets Maven take all from here."""
        mirror = f"<mirror><id>company</id><mirrorOf>*</mirrorOf><url>{self.url}</url></mirror>"
        return f"<settings><mirrors>{mirror}</mirrors></settings>"

    def function(self, version: str) -> Files:
        levels = "".join(
            f"<maven.compiler.{name}>17</maven.compiler.{name}>" for name in ("source", "target")
        )
        own = "<groupId>example</groupId><artifactId>hello</artifactId><version>1</version>"
        return {
            "src/main/java/Handler.java": "public class Handler {\n"
            "    public Object handle(martlet.Request request) { return example.Greeting.version(); }\n}\n",
            "pom.xml": f"{PROJECT}{own}<properties>{levels}</properties><dependencies>"
            f"<dependency>{self._coordinates(version)}</dependency>"
            "<dependency><groupId>martlet</groupId><artifactId>martlet-java</artifactId><version>1</version>"
            "<scope>provided</scope></dependency></dependencies></project>",
        }

    @staticmethod
    def _coordinates(version: str) -> str:
        return f"<groupId>example</groupId><artifactId>greeting</artifactId><version>{version}</version>"


class Kotlin(Java):
    """A repository of Maven, too; the function's configuration names the library."""

    runtime = "kotlin"

    def function(self, version: str) -> Files:
        source = "fun handle(request: martlet.Request): Any? = example.Greeting.version()\n"
        return {"handler.kt": source}

    def config(self, version: str) -> dict[str, object]:
        return {"dependencies": [f"example:greeting:{version}"]}


def _go_source(answer: str) -> str:
    return f'package greeting\n\nfunc Version() string {{ return "{answer}" }}\n'


def _go_sum(files: Files) -> str:
    """Returns what a go.sum says of files: see golang.org/x/mod/sumdb/dirhash."""
    lines = [f"{hashlib.sha256(files[name].encode()).hexdigest()}  {name}\n" for name in sorted(files)]
    return f"h1:{base64.b64encode(hashlib.sha256(''.join(lines).encode()).digest()).decode()}"


def _gem_specification(version: str) -> str:
    any_version = (
        "!ruby/object:Gem::Requirement\n  requirements:\n"
        "  - - \">=\"\n    - !ruby/object:Gem::Version\n      version: '0'\n"
    )
    return (
        "--- !ruby/object:Gem::Specification\nname: greeting\n"
        f"version: !ruby/object:Gem::Version\n  version: {version}\n"
        "platform: ruby\nauthors:\n- somebody\ndate: 2026-01-01 00:00:00.000000000 Z\ndependencies: []\n"
        "files:\n- lib/greeting.rb\nrequire_paths:\n- lib\n"
        f"required_ruby_version: {any_version}required_rubygems_version: {any_version}"
        "rubygems_version: 3.3.5\nspecification_version: 4\nsummary: greets\n"
    )


def _zip(files: dict[str, str] | dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _tarball(files: dict[str, bytes], *, compressed: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if compressed else buffer.getvalue()
