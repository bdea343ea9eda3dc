"""Every example is deployed as its README says and answers as it promises."""

import hashlib
import hmac
import io
import json
import struct
import zlib
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from martlet.cli import main

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def deploy(platform):
    """Deploys an example with the command of its README; returns a client whose root is the function's."""
    clients = {}

    def deploy_example(name: str) -> httpx2.Client:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("MARTLET_URL", platform.url)
            environment.setenv("MARTLET_KEY", platform.key)
            assert main(["deploy", str(EXAMPLES / name)]) == 0
        authorization = {"authorization": f"Bearer {platform.key}"}
        client = httpx2.Client(base_url=f"{platform.url}/invoke/{name}", headers=authorization, timeout=30)
        clients[name] = client
        return client

    yield deploy_example
    for name, client in clients.items():
        client.close()
        assert platform.client.delete(f"/functions/{name}").status_code == 204


def test_every_example_is_tested_here():
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    examples = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert examples <= tested


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_says_in_its_readme_how_to_deploy_it(example):
    assert f"martlet deploy examples/{example}\n" in (EXAMPLES / example / "README.md").read_text()


def test_hello(deploy):
    hello = deploy("hello")
    assert hello.post("", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
    assert hello.get("").json() == {"message": "Hello, World!"}


def test_echo(deploy):
    answer = deploy("echo").put("/a/b?c=d", json=[1, "ü"], headers={"X-Colour": "blue"}).json()
    assert answer["echo"] == [1, "ü"]
    assert (answer["method"], answer["path"], answer["query"]) == ("PUT", "/a/b", {"c": "d"})
    assert answer["headers"]["x-colour"] == "blue"
    assert "authorization" not in answer["headers"]


def test_json_maths(deploy):
    maths = deploy("json-maths")
    product = maths.post("", json={"a": 6, "b": 7, "operation": "multiply"})
    assert product.json() == {"result": 42, "operation": "multiply", "inputs": {"a": 6, "b": 7}}
    assert maths.post("", json={"a": 6, "b": 7}).json()["result"] == 13
    for mistake in ({"operation": "root"}, {"a": "six"}, {"a": 1, "operation": "divide"}):
        refused = maths.post("", json=mistake)
        assert refused.status_code == 400
        assert refused.json()["error"]


def test_lambda(deploy):
    function = deploy("lambda")
    answer = function.get("", params={"title": "Crème  brûlée!"}, headers={"x-request-id": "abc"})
    assert (answer.json(), answer.headers["x-request"]) == ({"slug": "creme-brulee"}, "abc")
    assert function.post("", json={"title": "Żółw"}).json() == {"slug": "zow"}
    assert function.post("", json={}).status_code == 400
    key = function.headers["authorization"].removeprefix("Bearer ")
    signed = f"AWS4-HMAC-SHA256 Credential={key}/20261121/us-east-1/lambda/aws4_request, Signature=0"
    for name in ("lambda", "lambda%3Alatest"):
        invoke = function.base_url.copy_with(raw_path=f"/2015-03-31/functions/{name}/invocations".encode())
        answer = function.post(invoke, json={"title": "A b"}, headers={"authorization": signed})
        assert answer.json() == {"slug": "a-b"}
    assert function.post(invoke, headers={"authorization": signed.replace(key, "wrong")}).status_code == 401


def test_streaming(deploy):
    # The pause is long: were the events held back until the end, the first would come after the deadline.
    with deploy("streaming").stream("GET", "?from=2&pause=10", timeout=9) as response:
        assert response.headers["content-type"] == "text/event-stream"
        first = next(response.iter_lines())
    assert json.loads(first.removeprefix("data: ")) == {"left": 2}


def test_streaming_ends(deploy):
    response = deploy("streaming").get("?from=2&pause=0.01")
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]
    assert [event["left"] for event in events] == [2, 1, 0]


def test_asgi_app(deploy, platform):
    app = deploy("asgi-app")
    assert app.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert app.post("/shout", content="hello").json() == {"shout": "HELLO"}
    assert app.get("/elsewhere").status_code == 404

    address = platform.url.replace("http", "ws", 1) + "/invoke/asgi-app/talk"
    with connect(address, additional_headers={"Authorization": f"Bearer {platform.key}"}) as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "HELLO"
        socket.send(b"\x00\x01")
        assert socket.recv(timeout=10) == b"\x00\x01"


def test_dependencies(deploy):
    page = deploy("dependencies").post("", content="*Hello* <b>")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == "<p><em>Hello</em> &lt;b&gt;</p>\n"


def test_webhook(deploy):
    webhook = deploy("webhook")
    body = b'{"action": "opened"}'
    signature = "sha256=" + hmac.new(b"change-me", body, hashlib.sha256).hexdigest()
    del webhook.headers["authorization"]
    received = webhook.post("", content=body, headers={"X-Hub-Signature-256": signature})
    assert (received.status_code, received.json()) == (202, {"received": "opened"})
    assert (
        webhook.post("", content=body + b" ", headers={"X-Hub-Signature-256": signature}).status_code == 401
    )
    assert webhook.post("", content=body).status_code == 401


def test_thumbnailer(deploy):
    thumbnailer = deploy("thumbnailer")
    thumbnail = thumbnailer.post("?size=64", content=png(320, 160))
    assert thumbnail.headers["content-type"] == "image/png"
    assert size_of(thumbnail.content) == (64, 32)
    assert thumbnailer.post("", content=b"no image").status_code == 415
    assert thumbnailer.post("?size=0", content=png(1, 1)).status_code == 400
    assert thumbnailer.post("", content=png(10_000, 10_000)).status_code == 413


def png(width: int, height: int) -> bytes:
    """Returns a black image, one bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes((width + 7) // 8)) * height)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in chunks:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return file.getvalue()


def size_of(image: bytes) -> tuple[int, int]:
    """Returns the width and height that a PNG claims."""
    width, height = struct.unpack(">II", image[16:24])
    return width, height


def test_go(deploy):
    addresses = deploy("go")
    assert addresses.get("/10.0.0.9/22").json() == {
        "network": "10.0.0.0/22",
        "first": "10.0.0.0",
        "last": "10.0.3.255",
        "addresses": 1024,
        "private": True,
    }
    assert addresses.get("/somewhere").status_code == 400


def test_rust(deploy):
    rows = deploy("rust").post("", content='name,town\nAda,London\n"Noether, ""Emmy""",Erlangen\n').json()
    assert rows == [{"name": "Ada", "town": "London"}, {"name": 'Noether, "Emmy"', "town": "Erlangen"}]


def test_cpp(deploy):
    statistics = deploy("cpp")
    answer = statistics.post("", json=[2, 4, 4, 4, 5, 5, 7, 9]).json()
    assert answer == {"count": 8, "mean": 5, "median": 4.5, "deviation": 2, "least": 2, "greatest": 9}
    assert statistics.post("", json={"a": 1}).status_code == 422


def test_java(deploy):
    java = deploy("java")
    plan = java.get("", params={"amount": "1200", "rate": "6", "months": "12"}).json()
    assert plan["monthly"] == 103.28
    assert plan["payments"][0] == {"month": 1, "interest": 6.0, "repaid": 97.28, "left": 1102.72}
    assert plan["payments"][-1]["left"] == 0
    assert java.get("").status_code == 422


def test_kotlin(deploy):
    kotlin = deploy("kotlin")
    summary = kotlin.post("", content=b"a b c\n\nb c d e\nc").json()
    assert summary == {
        "lines": 3,
        "words": 8,
        "longest": {"text": "b c d e", "words": 4},
        "common": ["c", "b", "a"],
    }
    assert kotlin.get("").status_code == 405


def test_ruby(deploy):
    ruby = deploy("ruby")
    assert ruby.post("", content="name,price\ntea,2.5\ncoffee,3\n").json() == [
        {"name": "tea", "price": 2.5},
        {"name": "coffee", "price": 3},
    ]
    assert ruby.post("?separator=;", content="a;b\n1;2\n").json() == [{"a": 1, "b": 2}]
    assert ruby.post("", content='a\n"b').status_code == 422
    assert ruby.get("").status_code == 405


def test_php(deploy):
    php = deploy("php")
    assert "<form>" in php.get("").text
    page = php.get("?name=<Ada>")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>Hello, &lt;Ada&gt;!</h1>" in page.text


def test_perl(deploy):
    line = '10.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET {path} HTTP/1.1" {status} {size}\n'
    log = "".join(
        line.format(path=path, status=status, size=size)
        for path, status, size in [("/", 200, 100), ("/", 304, "-"), ("/tea", 200, 7)]
    )
    assert deploy("perl").post("", content=f"{log}no line of a log\n").json() == {
        "statuses": {"200": 2, "304": 1},
        "paths": {"/": 2, "/tea": 1},
        "bytes": 107,
    }


def test_bash(deploy):
    bash = deploy("bash")
    assert bash.post("?top=2", content="The bird, the BIRD, the sky").text == "the 3\nbird 2\n"
    assert bash.post("?top=x").status_code == 400


def test_lua(deploy):
    letters = deploy("lua")
    values = {"name": "Żaneta", "thing": "parcel", "days": 3}
    expected = "Dear Żaneta,\n\nyour parcel has arrived after 3 days.\n"
    assert letters.post("", json=values).text == expected
    answer = letters.post("", json={"thing": "parcel", "days": 3})
    assert (answer.status_code, answer.json()) == (422, {"missing": ["name"]})


def test_elixir(deploy):
    parcels = deploy("elixir")
    numbers = {"1236": "valid", "1230": "mistyped", "x": "no number"}
    assert parcels.post("", json=[*numbers]).json() == numbers
    assert parcels.get("").headers["allow"] == "POST"


def test_r(deploy):
    line = deploy("r")
    fit = line.post("?at=10", content="x,y\n1,3\n2,5\n3,7\n4,9.5\n").json()
    assert fit == {"intercept": 0.75, "slope": 2.15, "r_squared": 0.996765, "predicted": 22.25}
    assert line.post("", content="no CSV").status_code == 422


def test_static(deploy):
    static = deploy("static")
    page = static.get("/about")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "heraldry" in page.text
    assert static.get("/about", headers={"if-none-match": page.headers["etag"]}).status_code == 304
    assert static.get("/nowhere").status_code == 404
    assert "flown away" in static.get("/nowhere").text


def test_node(deploy):
    slugs = deploy("node")
    title = "Żółw & Friends!"
    assert slugs.post("", content=title).json() == {"title": title, "slug": "zolw-friends"}
    assert slugs.post("", content="").status_code == 400


def test_typescript(deploy):
    temperatures = deploy("typescript")
    assert temperatures.get("?celsius=20").json() == {"celsius": 20, "fahrenheit": 68, "kelvin": 293.15}
    assert temperatures.get("?inches=1").status_code == 400


def test_deno(deploy):
    addresses = deploy("deno")
    assert addresses.get("", params={"address": "https://example.org:8443/a?b=c"}).json() == {
        "protocol": "https:",
        "hostname": "example.org",
        "port": "8443",
        "pathname": "/a",
        "query": {"b": "c"},
    }
    assert addresses.get("?address=nowhere").status_code == 400


def test_bun(deploy):
    fingerprints = deploy("bun").post("", content=b"hello").json()
    assert fingerprints["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert fingerprints["blake2b256"] == hashlib.blake2b(b"hello", digest_size=32).hexdigest()
