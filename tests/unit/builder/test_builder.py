"""Builds as a runtime describes them, with a language that is made of shell scripts."""

import asyncio
import json
import os
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
from martlet.runtimes import Catalogue
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry
from tests.driver_rigs import WORKSHOP_LANE

pytestmark = [pytest.mark.anyio, pytest.mark.root]

LIMITS = Limits(bytes=1_000_000, entries=100)
BUILD = 'command = ["sh", "{runtime}/build"]'


class Bench:
    """A builder with one language, whose script of builds is the test's to write."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.packages = PackageStore(Blobs.local(folder / "blobs"))
        self.builds = Builds(Registry(MemoryStore()), folder / "builds", 2)
        limits = {"memory": 256 * MiB, "disk": 64 * MiB, "environment": {}, "shown": []}
        self.workshop = Workshop(folder / "run", WORKSHOP_LANE, network=Network.NONE, egress=None, **limits)
        given = {"cache": 1 << 30, "limits": LIMITS, "timeout": 100, "lack": None, **more}
        self.builder = Builder(self.workshop, self.packages, folder / "cache", **given)
        self.log: list[str] = []

    def describe(self, script: str, build: str = BUILD, prepare: str | None = None) -> None:
        """Writes the language anew."""
        runtime = self.folder / "runtimes/parrot"
        runtime.mkdir(parents=True, exist_ok=True)
        (runtime / "build").write_text(script)
        if prepare is not None:
            (runtime / "prepare").write_text(prepare)
            build += '\nprepare = ["sh", "{runtime}/prepare"]'
        text = f'name = "parrot"\ntitle = "Parrot"\n[build]\n{build}\n[start]\ncommand = ["sh"]\n'
        (runtime / "runtime.toml").write_text(text)

    async def make(
        self, files: dict[str, str] | None = None, name: str = "hello", **config: Any
    ) -> dict[str, str]:
        """Builds and returns the files of the package that runs."""
        made: list[str] = []
        runtime = Catalogue.load(self.folder / "runtimes").resolve("parrot")

        async def work(build: RunningBuild) -> Outcome:
            code = build.folder / "code"
            code.mkdir()
            for path, text in (files or {"source": "squawk"}).items():
                (code / path).write_text(text)
            try:
                with self.packages.claim() as claim:
                    package = pack(code, build.folder / "code.tar.gz", LIMITS)
                    await claim.add(package)
                    configured = FunctionConfig.model_validate(config)
                    order = Order(runtime, configured, package.digest, code, build, claim, upgrade=False)
                    made.append(await self.builder.code(order))
            finally:
                self.log = [line.message for line in build.lines]
            return Outcome(1)

        running = self.builds.begin(new_build(name), work)
        await running.task
        assert not running.folder.exists()
        folder = self.folder / f"unpacked-{running.build.id}"
        await self.packages.unpack(made[0], folder)
        return {
            str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()
        }


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.workshop.open()
    yield bench
    await bench.workshop.close()


async def test_what_is_put_into_the_output_is_the_package(bench: Bench) -> None:
    bench.describe('cp source "$MARTLET_OUTPUT/function"; echo made')
    assert await bench.make() == {"function": "squawk"}
    assert "made" in bench.log


async def test_without_output_the_source_is_as_the_build_leaves_it(bench: Bench) -> None:
    bench.describe("echo more > added; rm source")
    assert await bench.make() == {"added": "more\n"}


async def test_a_build_is_told_what_it_builds(bench: Bench) -> None:
    bench.describe('env > "$MARTLET_OUTPUT/env"; pwd >> "$MARTLET_OUTPUT/env"')
    made = await bench.make(handler="bird.talk", dependencies=["seeds", "nuts"], memory="64Mi")
    lines = made["env"].splitlines()
    assert lines[-1] == "/source"
    assert {
        "MARTLET_SOURCE=/source",
        "MARTLET_OUTPUT=/output",
        "MARTLET_CACHE=/cache",
        "MARTLET_RUNTIME=/.runtime",
        "MARTLET_HANDLER=bird.talk",
        "MARTLET_DEPENDENCIES=seeds",
        "nuts",
        f"MARTLET_MEMORY={64 * MiB}",
        "HOME=/tmp/home",
        "TMPDIR=/tmp",
    } <= set(lines)


async def test_the_same_is_built_once_and_whatever_decides_it_builds_it_again(bench: Bench) -> None:
    script = 'echo built; date +%N > "$MARTLET_OUTPUT/when"'
    bench.describe(script)
    first = await bench.make()
    assert await bench.make() == first
    assert await bench.make(name="another", timeout=7) == first
    others = [
        await bench.make({"source": "other"}),
        await bench.make(handler="other"),
        await bench.make(memory="65Mi"),
        await bench.make(dependencies=["other"]),
    ]
    bench.describe(script + " # other")
    others.append(await bench.make())
    assert len({each["when"] for each in (first, *others)}) == 6


async def test_a_function_finds_its_cache_again_and_no_other_does(bench: Bench) -> None:
    bench.describe('cd "$MARTLET_CACHE"; cp -r . "$MARTLET_OUTPUT"; cp /source/source kept; touch /output/x')
    await bench.make({"source": "one"})
    assert (await bench.make({"source": "two"}))["kept"] == "one"
    assert "kept" not in await bench.make({"source": "three"}, name="another")


async def test_caches_are_removed_beyond_their_bound_the_oldest_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cache=3_000_000)
    await bench.workshop.open()
    bench.describe('head -c 1200000 /dev/zero > "$MARTLET_CACHE/zeros"; touch "$MARTLET_OUTPUT/x"')
    for name in ("a", "b", "c"):
        await bench.make({"source": name}, name=name)
    await bench.workshop.close()
    left = sorted(path.name.partition("@")[0] for path in (tmp_path / "cache/builds").iterdir())
    assert left == ["b", "c"]


SHOW_PREPARED = 'cp "$MARTLET_PREPARED"/* "$MARTLET_OUTPUT"'
PREPARE_ONCE = 'date +%N > "$MARTLET_CACHE/when"; chmod 600 "$MARTLET_CACHE/when"; echo preparing here'


async def test_what_all_builds_have_in_common_is_made_once(bench: Bench) -> None:
    bench.describe(SHOW_PREPARED, prepare=PREPARE_ONCE)
    first = await bench.make()
    assert "preparing here" in bench.log
    assert await bench.make({"source": "other"}, name="another") == first
    assert "preparing here" not in bench.log
    bench.describe(SHOW_PREPARED, prepare=PREPARE_ONCE + " # anew")
    assert (await bench.make())["when"] != first["when"]


async def test_platforms_may_have_in_common_what_their_builds_have(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name, prepared=tmp_path / "prepared")
        await bench.workshop.open()
        bench.describe(SHOW_PREPARED, prepare=PREPARE_ONCE)
        made.append(await bench.make())
        await bench.workshop.close()
    assert made[0] == made[1]


async def test_what_platforms_have_in_common_is_bounded_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, prepared=tmp_path / "prepared", cache=1_500_000)
    await bench.workshop.open()
    for number in range(3):
        filled = f'head -c 1000000 /dev/zero > "$MARTLET_CACHE/{number}"'
        bench.describe('touch "$MARTLET_OUTPUT/made"', prepare=filled)
        await bench.make({"source": str(number)})
    await bench.workshop.close()
    left = [path.name for path in (tmp_path / "prepared").glob("*/files/*")]
    assert left == ["2"]


async def test_of_builds_that_begin_together_one_prepares_and_the_others_wait(bench: Bench) -> None:
    bench.describe(SHOW_PREPARED, prepare=PREPARE_ONCE)
    made = await asyncio.gather(*(bench.make({"source": name}, name=name) for name in ("one", "two")))
    assert made[0] == made[1]


async def test_no_build_can_change_what_all_have_in_common(bench: Bench) -> None:
    attack = """
    cd "$MARTLET_PREPARED"
    (echo mine > when; echo mine > new; rm -f when; chmod 777 .; mv when old; mount -o remount,rw /prepared) 2>/dev/null
    """
    bench.describe(attack + SHOW_PREPARED, prepare='echo ours > "$MARTLET_CACHE/when"')
    assert await bench.make() == {"when": "ours\n"}
    assert await bench.make({"source": "other"}, name="another") == {"when": "ours\n"}


async def test_what_prepares_sees_nothing_of_a_function(bench: Bench) -> None:
    bench.describe(
        SHOW_PREPARED, f"network = true\n{BUILD}", prepare='ls / > "$MARTLET_CACHE/seen"; env >> /cache/seen'
    )
    seen = (await bench.make(handler="bird.talk", dependencies=["seeds"]))["seen"].splitlines()
    assert {"cache", "MARTLET_CACHE=/cache", "MARTLET_RUNTIME=/.runtime"} <= set(seen)
    assert not {"source", "output", "prepared"} & set(seen)
    assert "bird.talk" not in str(seen)
    assert "seeds" not in str(seen)


async def test_a_preparation_that_fails_fails_the_build_and_is_tried_again(bench: Bench) -> None:
    bench.describe(SHOW_PREPARED, prepare='echo half > "$MARTLET_CACHE/half"; echo the reason; exit 7')
    for _ in range(2):
        with pytest.raises(BuildFailed, match=r"cannot be prepared.*exit code 7") as caught:
            await bench.make()
        assert caught.value.field == "config.runtime"
        assert "the reason" in caught.value.extra["log"]
    assert not list(bench.folder.rglob("half"))


async def test_what_nobody_asks_for_any_more_is_removed_beyond_the_bound_of_caches(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cache=1_500_000)
    await bench.workshop.open()
    for content in ("one", "two"):
        prepare = (
            f'head -c 1000000 /dev/zero > "$MARTLET_CACHE/zeros"; echo {content} > "$MARTLET_CACHE/{content}"'
        )
        bench.describe('ls "$MARTLET_PREPARED" > "$MARTLET_OUTPUT/seen"', prepare=prepare)
        assert content in (await bench.make())["seen"]
    await bench.workshop.close()
    assert not list(tmp_path.rglob("one"))
    assert list(tmp_path.rglob("two"))


async def test_a_language_may_build_only_what_has_certain_files(bench: Bench) -> None:
    bench.describe("touch built", f'when = ["*.lock"]\n{BUILD}')
    assert await bench.make() == {"source": "squawk"}
    assert "built" in await bench.make({"nest.lock": "1"})
    assert "built" in await bench.make(dependencies=["seeds"])


async def test_a_failure_is_told_in_the_words_of_the_build(bench: Bench) -> None:
    said = json.dumps({"field": "config.handler", "message": "there is no such bird"})
    bench.describe(f"echo '{said}' >&4; exit 1")
    with pytest.raises(BuildFailed, match="no such bird") as caught:
        await bench.make()
    assert caught.value.field == "config.handler"
    bench.describe("echo the reason >&2; exit 7")
    with pytest.raises(BuildFailed, match="exit code 7") as caught:
        await bench.make()
    assert caught.value.field == "code"
    assert "the reason" in caught.value.extra["log"]


async def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, timeout=0.5)
    await bench.workshop.open()
    bench.describe("sleep 600")
    with pytest.raises(BuildFailed, match="build_timeout"):
        await bench.make()
    await bench.workshop.close()


async def test_a_build_without_network_says_what_the_operator_can_do(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lack="set system.build_network to host")
    await bench.workshop.open()
    bench.describe("exit 1", f"network = true\n{BUILD}")
    with pytest.raises(BuildFailed, match=r"set system\.build_network to host"):
        await bench.make()
    await bench.workshop.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('ln -s /etc/passwd "$MARTLET_OUTPUT/out"', "absolute path"),
        ('touch "$MARTLET_OUTPUT/f"; ln -s ../../.. "$MARTLET_OUTPUT/out"', "leads out of the package"),
        ('mkfifo "$MARTLET_OUTPUT/fifo"', "FIFO"),
        ('head -c 2000000 /dev/zero > "$MARTLET_OUTPUT/large"', "max_package"),
    ],
)
async def test_what_no_package_may_hold_is_refused(bench: Bench, script: str, reason: str) -> None:
    bench.describe(script)
    with pytest.raises(BuildFailed, match=reason):
        await bench.make()


async def test_a_source_that_is_replaced_by_a_link_leads_nowhere(bench: Bench, tmp_path: Path) -> None:
    attack = f"rm -rf /source; rmdir /source; mv /source /tmp/away; ln -sfT {tmp_path} /source; touch /source/still"
    bench.describe(f"(cd /; {attack}) 2>&1")
    assert await bench.make() == {"still": ""}
    assert "still" not in os.listdir(tmp_path)
