"""Dependencies, built with a tiny wheel of our own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from martlet.builder.builds import Builds, Outcome, RunningBuild
from martlet.builder.packages import PackageStore
from martlet.builder.python import PythonBuilder
from martlet.errors import BuildFailed
from martlet.package.packing import pack
from martlet.package.rules import Limits
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry

pytestmark = pytest.mark.anyio

LIMITS = Limits(bytes=10_000_000, entries=1000)
INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable))


class Workshop:
    """A builder, and what it needs, over a folder."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.blobs = Blobs.local(folder / "blobs")
        self.packages = PackageStore(self.blobs)
        self.builds = Builds(Registry(MemoryStore()), folder / "builds", 2)
        self.builder = PythonBuilder(folder / "cache", INTERPRETER, limits)
        self.folder = folder
        self.log: list[str] = []

    async def build(self, *wanted: str, function: str = "hello", upgrade: bool = False) -> str:
        """Builds and returns the digest; `log` then holds what was said."""
        digests: list[str] = []

        async def work(build: RunningBuild) -> Outcome:
            try:
                with self.packages.claim() as claim:
                    digests.append(await self.builder.build(list(wanted), build, claim, upgrade=upgrade))
            finally:
                self.log = [line.message for line in build.lines]
            return Outcome(1)

        await self.builds.begin(function, work).task
        return digests[0]

    async def unpacked(self, digest: str) -> Path:
        """Returns the folder with what was built."""
        folder = self.folder / f"unpacked-{digest[:8]}"
        await self.packages.unpack(digest, folder)
        return folder


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


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


async def test_a_source_distribution_is_never_run(make_wheel, workshop, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    source = tmp_path / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom setuptools import setup\nsetup(name='evil')\n"
    )
    subprocess.run(["tar", "czf", tmp_path / "links/evil-1.0.tar.gz", "evil-1.0"], cwd=tmp_path, check=True)
    with pytest.raises(BuildFailed):
        await workshop.build("evil")
    assert not marker.exists()


async def test_what_is_too_large_is_refused_and_not_kept(tmp_path: Path, make_wheel) -> None:
    workshop = Workshop(tmp_path, Limits(bytes=10_000, entries=1000))
    make_wheel("tiny", "1.0", f"X = {'y' * 20_000!r}\n")
    with pytest.raises(BuildFailed, match="max_package") as caught:
        await workshop.build("tiny")
    assert caught.value.field == "config.dependencies"
    assert list(await workshop.blobs.list("packages")) == []


async def test_large_code_is_compiled_and_small_code_is_not(workshop, tmp_path: Path) -> None:
    async def compiled(source: str, name: str) -> list[str]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "handler.py").write_text(source)
        package = pack(folder, tmp_path / f"{name}.tar.gz", LIMITS)
        digests = []

        async def work(build: RunningBuild) -> Outcome:
            made = await workshop.builder.compile(package, build)
            with workshop.packages.claim() as claim:
                await claim.add(made)
            digests.append(made.digest)
            return Outcome(1)

        for _ in range(2):
            await workshop.builds.begin("hello", work).task
        assert digests[0] == digests[1], "the same code makes the same package"
        unpacked = await workshop.unpacked(digests[0])
        return sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file())

    cached = f"__pycache__/handler.{sys.implementation.cache_tag}.pyc"
    large = "".join(f"def f{n}(x):\n    return x in {{'a{n}', 'b', 'c'}}\n" for n in range(500))
    assert await compiled(large, "large") == [cached, "handler.py"]
    assert await compiled("def handle(request): ...\n", "small") == ["handler.py"]
    assert await compiled(large + "def broken(:\n", "broken") == ["handler.py"]


async def test_compiled_code_names_its_source_as_functions_see_it(
    make_wheel, workshop, tmp_path: Path
) -> None:
    make_wheel("tiny", "1.0", "def fail():\n    raise ValueError\n")
    folder = await workshop.unpacked(await workshop.build("tiny"))
    (compiled,) = folder.rglob("*.pyc")
    assert b"/dependencies/tiny/__init__.py" in compiled.read_bytes()
    assert os.fsencode(tmp_path) not in compiled.read_bytes()


@pytest.mark.slow
async def test_a_real_package_is_installed_from_the_registry(workshop) -> None:
    folder = await workshop.unpacked(await workshop.build("idna==3.10"))
    assert (folder / "idna/__init__.py").exists()
