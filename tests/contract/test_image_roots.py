"""Functions in containers whose root is an image: Debian's own Python and Ruby."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from martlet.drivers.images import ImageRoots
from martlet.images.debian import debian_root
from martlet.images.scan import scan
from martlet.images.store import Images
from martlet.model import FunctionConfig, Revision
from martlet.runtimes import Catalogue
from martlet.runtimes.runtime import Runtime
from tests.conftest import require
from tests.driver_rigs import SECONDS, ask, container_rig, docker_rig, podman_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
SEEN = """import os, socket, sys
def handle(request):
    local = socket.getaddrinfo("localhost", 80)[0][4][0]
    return [sys.executable, sys.version.split()[0], sorted(os.listdir("/usr")), local, request.get_json()]
"""
HANDLERS = {
    "python": ("handler.py", SEEN),
    "ruby": (
        "handler.rb",
        "require 'socket'\ndef handle(request)\n  local = IPSocket.getaddress('localhost')\n"
        "  [RbConfig.ruby, RUBY_VERSION, Dir.children('/usr').sort, local, request.json]\nend\n",
    ),
}
PACKAGES = {"python": "python3", "ruby": "ruby"}
MARK = "made-for-this-test"
RIGS = {engine: partial(container_rig, engine=engine) for engine in ("crun", "runc")}
RIGS |= {"docker": docker_rig, "podman": podman_rig}


@dataclass
class Sole:
    """A catalogue of one runtime: in the version that Debian has, which need not be the machine's."""

    runtime: Runtime

    def resolve(self, name: str) -> Runtime:
        assert name == self.runtime.name
        return self.runtime

    def available(self) -> tuple[Runtime, ...]:
        return (self.runtime,)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A store that the tests of this module fill."""
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")
    folder = tmp_path_factory.mktemp("images")
    yield Images(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("language", "engine"),
    [*product(HANDLERS, ("crun", "runc")), ("python", "docker"), ("ruby", "podman")],
)
async def test_a_function_runs_by_what_its_root_has(
    images: Images, tmp_path: Path, language: str, engine: str
):
    runtime = Catalogue.load().resolve(language)
    image = debian_root(images, runtime, print)
    version = next(each.version for each in scan(image).packages if each.name == PACKAGES[language])
    numbers = version.rpartition(":")[2].replace("+", ".").replace("-", ".").split(".")
    parts = runtime.description.version_parts
    runtime = runtime.model_copy(update={"name": language + ".".join(numbers[:parts])})
    (image.root / "usr" / MARK).mkdir(exist_ok=True)
    roots = ImageRoots(images, image.name, "lane-0", 1 << 33, print)

    async with RIGS[engine](
        tmp_path, runtime=runtime.name, roots=roots, runtimes=Sole(runtime), images=images.folder
    ) as rig:
        code = rig.packages / ("c" * 64)
        code.mkdir()
        file, text = HANDLERS[language]
        (code / file).write_text(text)
        revision = Revision(
            function="seen",
            number=1,
            config=FunctionConfig(runtime=runtime.name),
            code=code.name,
            created=0.0,
        )
        handle = await rig.start()
        await rig.driver.specialise(handle, revision, code, None, SECONDS)
        program, said, usr, local, answered = json.loads(await ask(handle, {"hello": "world"}))
    roots.close()

    assert program.startswith("/usr/bin/")
    assert said.split(".")[:parts] == numbers[:parts]
    assert MARK in usr, "it sees its root, and not the machine's /usr"
    assert local in ("127.0.0.1", "::1"), "the image has no /etc/hosts"
    assert answered == {"hello": "world"}
