"""Functions that are images, on a real platform: what they bring, what they are given, and what they cannot do."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from martlet.sandbox import loaded
from tests.compiled import compiled, server
from tests.conftest import require
from tests.oci import Entry, Layout, archive, folder, layer, link
from tests.system.conftest import until
from tests.system.test_adoption import kill_lane
from tests.system.test_containers import left_of

pytestmark = [pytest.mark.slow, pytest.mark.root]
MARTLET = Path(sys.executable).with_name("martlet")
INTRUDER = """long write(int, const void *, unsigned long);
__attribute__((constructor)) static void loaded(void) { write(1, "INTRUDED\\n", 9); }
"""
ENGINES = ["crun", "runc", "runsc"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> bytes:
    """A server that takes no other file."""
    return server(tmp_path_factory.mktemp("program"))


class Shop:
    """A platform whose functions are images."""

    def __init__(self, platform, work: Path, program: bytes) -> None:
        self.platform, self._work, self._program = platform, work, program
        self.client = platform.client

    def image(self, name: str, *entries: Entry, **config) -> None:
        """Makes an image of the server and more, and imports it."""
        served = Entry("server", self._program, mode=0o755)
        path = archive(
            self._work / "image.tar",
            Layout([layer(served, *entries)], {"Entrypoint": ["/server"], **config}).files(),
        )
        made = self.platform.admin.post(f"/images?name={name}", content=path.read_bytes())
        assert made.status_code == 201, made.text

    def deploy(self, name: str, **config) -> httpx2.Response:
        """Deploys an image as the function of its name."""
        config = {"execution_mode": "container", "image": name, **config}
        answer = self.client.post("/functions", json={"name": name, "config": config})
        if answer.status_code == 409:
            answer = self.client.put(f"/functions/{name}", json={"config": config})
        return answer

    def serve(self, name: str, *entries: Entry, config=None, **image) -> None:
        """Makes an image, and a function of it."""
        self.image(name, *entries, **image)
        answer = self.deploy(name, **(config or {}))
        assert answer.status_code == 201, answer.text

    def ask(self, name: str, path: str = "/") -> httpx2.Response:
        return self.client.get(f"/invoke/{name}{path}")


def make_shop(make_platform, program, work, engine, **system):
    require(shutil.which(engine), engine)
    platform = make_platform(lanes=1, container_runtime=engine, disable_microvm=True, **system)
    platform.start()
    return Shop(platform, work, program)


@pytest.fixture(scope="module", params=ENGINES)
def any_shop(request, make_platform, program, tmp_path_factory):
    if request.param == "crun":
        yield request.getfixturevalue("shop")
        return
    shop = make_shop(make_platform, program, tmp_path_factory.mktemp("images"), request.param)
    yield shop
    shop.platform.stop()
    until(lambda: not left_of(shop.platform), why="something is left")


@pytest.fixture(scope="module")
def shop(make_platform, program, tmp_path_factory):
    shop = make_shop(make_platform, program, tmp_path_factory.mktemp("images"), "crun", cold_start_timeout=10)
    yield shop
    shop.platform.stop()
    until(lambda: not left_of(shop.platform), why="something is left")


def test_an_image_without_anything_but_its_server_is_a_function(any_shop):
    any_shop.serve(
        "scratch", config={"environment": {"OF": "the function"}}, Env=["OF=the image", "BY=image"]
    )

    answer = any_shop.ask("scratch", "/some/path")

    assert (answer.status_code, answer.text.split()[0]) == (200, "hello")
    request = answer.headers["x-request-id"]
    until(
        lambda: (
            "asked for /some/path"
            in any_shop.client.get(f"/functions/scratch/logs?request_id={request}").text
        ),
        why="no logs of the request",
    )
    lines = any_shop.ask("scratch", "/variables").text.splitlines()
    assert {"OF=the function", "BY=image", "PORT=3000", "HOME=/tmp"} <= set(lines)
    power = dict(line.split(":", 1) for line in any_shop.ask("scratch", "/power").text.splitlines())
    assert int(power["uid"]) >= 2_000_000_000
    assert (power["became root"].strip(), power["made a namespace"].strip()) == ("0", "0")
    assert {int(power[each], 16) for each in power if each.startswith("Cap")} == {0}
    wrote = dict(line.split(": ") for line in any_shop.ask("scratch", "/write").text.splitlines())
    assert wrote.pop("/tmp") == "written"
    assert "written" not in wrote.values()


def test_requests_stream_upgrade_and_end_as_those_of_other_functions_do(any_shop):
    any_shop.serve("whole", config={"concurrency": 4})

    with any_shop.client.stream("GET", "/invoke/whole/stream") as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"one"
        assert any_shop.ask("whole", "/go").text == "written"
        assert b"".join(pieces) == b"two"
    with socket.create_connection(("127.0.0.1", any_shop.platform.port), timeout=20) as wire:
        key = any_shop.platform.key
        wire.sendall(
            f"GET /invoke/whole/upgrade HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            "connection: upgrade\r\nupgrade: websocket\r\n\r\n".encode()
        )
        stream = wire.makefile("rb")
        assert b" 101 " in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        wire.sendall(b"said\n")
        assert stream.readline() == b"said\n"
    crashed = any_shop.ask("whole", "/exit")
    assert (crashed.status_code, crashed.json()["code"]) == (502, "function_crashed")
    assert any_shop.ask("whole").status_code == 200, "it is replaced"


def test_memory_time_and_idleness_are_limited(shop):
    shop.serve("limited", config={"memory": "64Mi", "idle_ttl": 0.2})
    shop.serve("hurried", config={"timeout": 3})  # in which it answers on a busy machine too

    hog, hang = shop.ask("limited", "/hog"), shop.ask("hurried", "/hang")

    assert (hog.status_code, hog.json()["code"]) == (502, "function_out_of_memory")
    assert (hang.status_code, hang.json()["code"]) == (504, "function_timeout")
    assert shop.ask("limited").status_code == shop.ask("hurried").status_code == 200
    until(lambda: not shop.platform.instances("limited"), why="it was not scaled to zero")
    timing = shop.ask("limited").headers["server-timing"]
    assert all(part in timing for part in ("cell;", "load;", "run;"))


def test_an_instance_of_an_image_outlives_its_lane_and_keeps_the_image(shop):
    shop.serve("stays", Env=["IMAGE=of no other function"])
    shop.ask("stays")
    before = shop.platform.instances("stays")

    kill_lane(shop.platform)

    assert shop.ask("stays").status_code == 200
    after = shop.platform.instances("stays")
    assert [i["pid"] for i in after] == [i["pid"] for i in before]
    assert shop.client.delete("/functions/stays").status_code == 204
    until(lambda: shop.platform.admin.delete("/images/stays").status_code == 204, why="the image is in use")


def test_the_command_the_folder_and_the_links_of_an_image_are_its_own(shop):
    own = [folder("function"), Entry("function/mine", "kept"), folder("srv"), link("srv/run", "../server")]
    shop.serve("own", *own, Entrypoint=["./run"], Cmd=["serve"], WorkingDir="/srv", Env=["PATH=/srv"])

    assert "folder: /srv" in shop.ask("own", "/variables").text
    store = shop.platform.settings.system.function_storage_path / "images"
    assert [path.read_text() for path in store.glob("*/root/function/mine")] == ["kept"]


def test_the_handler_names_another_program_of_the_image(shop):
    shop.image("named", link("usr-bin", "."), Entrypoint=["/nothing"], Env=["PATH=/nowhere:/usr-bin"])

    assert shop.deploy("named", handler="server").status_code == 201
    assert shop.ask("named").status_code == 200


def test_the_command_line_deploys_an_image_without_any_folder(shop, tmp_path):
    shop.image("told")
    own = {"MARTLET_URL": shop.platform.url, "MARTLET_KEY": shop.platform.key}
    command = [MARTLET, "deploy", "--image", "told", "--execution-mode", "container"]

    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{shop.platform.url}/invoke/told\n"
    assert shop.ask("told").status_code == 200


def test_a_server_on_a_port_of_its_own_is_reached_where_the_function_says_so(shop):
    shop.image("fixed", Cmd=["elsewhere", "80"])

    refused = shop.deploy("fixed").json()
    assert "it listens on 80" in refused["detail"]
    assert "set PORT" in refused["detail"]
    assert shop.deploy("fixed", environment={"PORT": "80"}).status_code == 201
    assert shop.ask("fixed").status_code == 200


@pytest.mark.parametrize(
    ("name", "image", "says"),
    [
        (
            "silent",
            {"Cmd": ["silent"]},
            "nothing listened on the port that $PORT names within 10 s. Let its server",
        ),
        ("ends", {"Cmd": ["exit", "3"]}, "ended with exit code 3"),
        ("absent", {"Entrypoint": ["/absent"]}, "No such file or directory: '/absent'"),
        ("text", {"Entrypoint": ["/etc/text"]}, "'/etc/text'"),
        ("empty", {"Entrypoint": []}, "the image names no program"),
        ("lost", {"WorkingDir": "/lost"}, "No such file or directory: '/lost'"),
        ("long", {"Env": [f"LONG={'x' * 200_000}"]}, "Argument list too long"),
        ("huge", {"Env": [f"V{number}={'x' * 5000}" for number in range(100)]}, "are over 256Ki"),
    ],
)
def test_an_image_that_does_not_serve_fails_its_deploy_which_says_why(shop, name, image, says):
    shop.image(name, Entry("etc/text", "no program", mode=0o755), **image)

    answer = shop.deploy(name)

    problem = answer.json()
    assert (problem["status"], problem["code"]) == (502, "function_load_failed"), answer.text
    assert says in problem["detail"]
    if name in ("silent", "ends"):
        assert f"started as {image['Cmd'][0]}" in problem["log"]
    assert not shop.platform.instances(name)


def test_a_large_image_is_sent_by_an_administrator_only(shop, tmp_path):
    random = Entry("random", os.urandom(30_000_000))
    path = archive(tmp_path / "image.tar", Layout([layer(random)]).files())
    with httpx2.Client(base_url=shop.platform.url, timeout=60) as client:
        client.headers["authorization"] = f"Bearer {shop.platform.key}"
        assert client.post("/images?name=large", content=path.read_bytes()).status_code == 403
        assert "large" not in [image["name"] for image in client.get("/images").json()]
        client.headers["authorization"] = f"Bearer {shop.platform.admin_key}"
        made = client.post("/images?name=large", content=path.read_bytes())
        assert (made.status_code, made.json()["size"]) == (201, 30_000_000)
        assert client.delete("/images/large").status_code == 204


def test_a_hostile_image_is_nobody_and_reaches_nothing_of_the_platforms(shop, tmp_path):
    intruder = compiled(tmp_path / "intruder.so", INTRUDER, "-shared", "-fPIC", "-nostdlib")
    loader, libraries = loaded.libraries()
    traps = [Entry(path.lstrip("/"), intruder, mode=0o755) for path in [*libraries, loader]]
    traps += [Entry("intruder.so", intruder, mode=0o755), Entry("etc/ld.so.preload", "/intruder.so\n")]
    traps += [Entry("suid", "#!/server", mode=0o4755), link("tmp", "/etc"), link(".interpreter", "/etc")]

    shop.serve("hostile", *traps, User="0:0", Env=["LD_PRELOAD=/intruder.so"])

    power = shop.ask("hostile", "/power").text
    assert "uid: 2" in power
    assert "became root: 0" in power
    assert "Seccomp:\t2" in power
    assert "NoNewPrivs:\t1" in power
    logs = until(
        lambda: "started as serve" in (text := shop.client.get("/functions/hostile/logs").text) and text,
        why="no log",
    )
    assert "INTRUDED" not in logs
    wrote = dict(line.split(": ") for line in shop.ask("hostile", "/write").text.splitlines())
    assert [place for place, how in wrote.items() if how == "written"] == ["/tmp"]


def test_a_killed_platform_leaves_nothing_of_images_either(shop):
    shop.serve("lost-all")
    shop.ask("lost-all")
    (instance,) = shop.platform.instances("lost-all")

    for process in [shop.platform.process.pid, *shop.platform.children().values()]:
        os.kill(process, signal.SIGKILL)
    shop.platform.process.wait()
    shop.platform.start()

    assert not Path(f"/proc/{instance['pid']}").exists()
    assert shop.ask("lost-all").status_code == 200
