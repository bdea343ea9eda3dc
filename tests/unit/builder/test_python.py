"""Python's builds: dependencies, installed with tiny packages of our own, and code that is compiled ahead."""

import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from martlet.builder.builder import Builder, Order
from martlet.builder.builds import Builds, Outcome, RunningBuild, new_build
from martlet.builder.packages import PackageStore
from martlet.builder.workshop import Workshop
from martlet.errors import BuildFailed
from martlet.model import FunctionConfig, MiB, Network
from martlet.package.packing import pack
from martlet.package.rules import Limits
from martlet.runtimes import INTERPRETER, Catalogue
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry
from tests.driver_rigs import WORKSHOP_LANE
from tests.unit.builder.conftest import only_links

pytestmark = [pytest.mark.anyio, pytest.mark.root]

LIMITS = Limits(bytes=10_000_000, entries=1000)


class Bench:
    """A builder, and what it needs, over a folder."""

    def __init__(self, folder: Path, limits: Limits = LIMITS, *, offline: bool = True) -> None:
        self.blobs = Blobs.local(folder / "blobs")
        self.packages = PackageStore(self.blobs)
        self.builds = Builds(Registry(MemoryStore()), folder / "builds", 2)
        self.workshop = Workshop(
            folder / "run",
            WORKSHOP_LANE,
            network=Network.HOST,
            egress=None,
            memory=1024 * MiB,
            disk=256 * MiB,
            environment=only_links(folder) if offline else {},
            shown=[folder / "links"] if offline else [],
        )
        self.builder = Builder(
            self.workshop,
            self.packages,
            folder / "cache",
            cache=1 << 30,
            limits=limits,
            timeout=60,
            lack=None,
        )
        self.runtime = Catalogue.load().resolve("python")
        self.folder = folder
        self.log: list[str] = []

    async def make(self, step: str, function: str, source: str, upgrade: bool, **config: Any) -> str | None:
        """Has the builder do a step (``code``, ``dependencies``) and returns the digest; `log` has what was said."""
        made: list[str | None] = []

        async def work(build: RunningBuild) -> Outcome:
            code = build.folder / "code"
            code.mkdir()
            (code / "handler.py").write_text(source)
            try:
                with self.packages.claim() as claim:
                    package = pack(code, build.folder / "code.tar.gz", LIMITS)
                    await claim.add(package)
                    configured = FunctionConfig.model_validate(config)
                    order = Order(self.runtime, configured, package.digest, code, build, claim, upgrade)
                    made.append(await getattr(self.builder, step)(order))
            finally:
                self.log = [line.message for line in build.lines]
            return Outcome(1)

        await self.builds.begin(new_build(function), work).task
        return made[0]

    async def build(self, *wanted: str, function: str = "hello", upgrade: bool = False) -> str:
        """Installs dependencies and returns their digest."""
        digest = await self.make("dependencies", function, "pass\n", upgrade, dependencies=wanted)
        assert digest is not None
        return digest

    async def unpacked(self, digest: str) -> Path:
        """Returns the folder with what was built."""
        folder = self.folder / f"unpacked-{digest[:8]}"
        await self.packages.unpack(digest, folder)
        return folder


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Bench]:
    (tmp_path / "links").mkdir(exist_ok=True)
    bench = Bench(tmp_path)
    await bench.workshop.open()
    yield bench
    await bench.workshop.close()


async def test_what_is_installed_can_be_imported_and_brings_what_it_needs(make_wheel, workshop) -> None:
    make_wheel("other", "2.0", "WORD = 'deep'\n")
    make_wheel("tiny", "1.0", "from other import WORD\n", requires=("other>=1",))
    folder = await workshop.unpacked(await workshop.build("tiny"))
    command = [INTERPRETER, "-S", "-c", "import tiny; print(tiny.WORD)"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "deep\n"
    assert any("tiny==1.0" in line for line in workshop.log)


async def test_modules_are_compiled_and_are_not_compiled_again(make_wheel, workshop) -> None:
    make_wheel("tiny", "1.0")
    folder = await workshop.unpacked(await workshop.build("tiny"))
    (compiled,) = folder.rglob("*.pyc")
    assert (
        int.from_bytes(compiled.read_bytes()[4:8], "little") == 1
    )  # named by a hash that is not checked (PEP 552)
    (folder / "tiny/__init__.py").write_text("ANSWER = 'from source'\n")
    command = [INTERPRETER, "-S", "-c", "import tiny; print(tiny.ANSWER)"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "42\n"


async def test_the_same_lock_is_installed_once_for_all_functions(make_wheel, workshop) -> None:
    make_wheel("tiny", "1.0")
    first = await workshop.build("tiny", function="one")
    assert await workshop.build("tiny==1.0", function="two") == first
    assert not any("compiling" in line for line in workshop.log)


async def test_a_function_keeps_its_versions_until_it_asks_for_newer_ones(make_wheel, workshop) -> None:
    make_wheel("tiny", "1.0")
    first = await workshop.build("tiny")
    make_wheel("tiny", "2.0", "ANSWER = 43\n")
    assert await workshop.build("tiny") == first
    assert workshop.log == ["the dependencies are those of before"]
    assert await workshop.build("tiny", upgrade=True) != first


async def test_what_was_deleted_meanwhile_is_installed_again(make_wheel, workshop) -> None:
    make_wheel("tiny", "1.0")
    first = await workshop.build("tiny")
    await workshop.blobs.delete("packages", first)
    second = await workshop.build("tiny")
    assert await workshop.blobs.exists("packages", second)


async def test_a_package_that_does_not_exist_fails_with_the_reason_in_the_log(make_wheel, workshop) -> None:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build("no-such-package")
    assert caught.value.field == "config.dependencies"
    assert any("no-such-package" in line for line in caught.value.extra["log"])


async def test_versions_that_contradict_each_other_fail(make_wheel, workshop) -> None:
    make_wheel("tiny", "1.0", requires=("other<1",))
    make_wheel("other", "2.0")
    with pytest.raises(BuildFailed):
        await workshop.build("tiny", "other")


async def test_a_source_distribution_is_built_in_the_sandbox(make_wheel, workshop, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the platform")
    backend = (
        "import os, zipfile\n"
        "def build_wheel(folder, settings=None, metadata=None):\n"
        f"    assert not os.path.exists({str(tmp_path / 'secret')!r}), 'it sees files of the platform'\n"
        "    name = 'tiny-1.0-py3-none-any.whl'\n"
        "    info = 'tiny-1.0.dist-info/'\n"
        "    with zipfile.ZipFile(os.path.join(folder, name), 'w') as wheel:\n"
        "        wheel.writestr('tiny.py', f'BUILDER = {os.getuid()}')\n"
        "        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')\n"
        "        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\n'\n"
        "            'Root-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr(info + 'RECORD', '')\n"
        "    return name\n"
    )
    source = tmp_path / "tiny-1.0"
    source.mkdir()
    (source / "backend.py").write_text(backend)
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (source / "pyproject.toml").write_text(
        "[project]\nname = 'tiny'\nversion = '1.0'\n"
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    with tarfile.open(tmp_path / "links/tiny-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "tiny-1.0")
    folder = await workshop.unpacked(await workshop.build("tiny"))
    builder = int((folder / "tiny.py").read_text().removeprefix("BUILDER = "))
    assert builder not in (0, os.geteuid())


async def test_what_is_too_large_is_refused_and_not_kept(make_wheel, workshop) -> None:
    workshop.builder._limits = Limits(bytes=10_000, entries=1000)
    make_wheel("tiny", "1.0", f"X = {'y' * 20_000!r}\n")
    with pytest.raises(BuildFailed, match="max_package") as caught:
        await workshop.build("tiny")
    assert caught.value.field == "config.dependencies"
    assert len(await workshop.blobs.list("packages")) == 1, "only the source is kept"


@pytest.mark.parametrize("line", ["-r /etc/passwd", "evil @ file:///etc/passwd", "./folder"])
async def test_what_is_no_requirement_is_refused_by_its_field(workshop, line: str) -> None:
    with pytest.raises(BuildFailed, match="is not a requirement") as caught:
        await workshop.build(line)
    assert caught.value.field == "config.dependencies"


async def test_large_code_is_compiled_and_small_code_is_not(workshop) -> None:
    async def compiled(source: str) -> list[str]:
        digests = [await workshop.make("code", "hello", source, False) for _ in range(2)]
        assert digests[0] == digests[1], "the same code makes the same package"
        unpacked = await workshop.unpacked(digests[0])
        return sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file())

    cached = f"__pycache__/handler.{sys.implementation.cache_tag}.pyc"
    large = "".join(f"def f{n}(x):\n    return x in {{'a{n}', 'b', 'c'}}\n" for n in range(500))
    assert await compiled(large) == [cached, "handler.py"]
    assert workshop.log == ["it was built before"]
    assert await compiled("def handle(request): ...\n") == ["handler.py"]
    assert await compiled(large + "def broken(:\n") == ["handler.py"]


async def test_compiled_code_names_its_source_as_functions_see_it(
    make_wheel, workshop, tmp_path: Path
) -> None:
    make_wheel("tiny", "1.0", "def fail():\n    raise ValueError\n")
    folder = await workshop.unpacked(await workshop.build("tiny"))
    (compiled,) = folder.rglob("*.pyc")
    assert b"/dependencies/tiny/__init__.py" in compiled.read_bytes()
    assert os.fsencode(tmp_path) not in compiled.read_bytes()
    assert b"/output" not in compiled.read_bytes()


@pytest.mark.slow
async def test_a_real_package_is_installed_from_the_registry(tmp_path: Path) -> None:
    bench = Bench(tmp_path, offline=False)
    await bench.workshop.open()
    folder = await bench.unpacked(await bench.build("idna==3.10"))
    await bench.workshop.close()
    assert (folder / "idna/__init__.py").exists()
