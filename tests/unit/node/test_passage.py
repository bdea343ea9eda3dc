"""What a function is told of a request, worked out from its head."""

from types import SimpleNamespace

import pytest

from martlet.http.exchange import Exchange
from martlet.model import FunctionConfig, Revision
from martlet.node.passage import Passage
from martlet.node.target import Target

TARGET = Target(Revision(function="hello", number=3, config=FunctionConfig(), code="0" * 64, created=0.0))


def exchange(target=b"/invoke/hello/a?b=1", headers=(), peer="192.0.2.1"):
    made = Exchange(SimpleNamespace(peer=peer), 0.0, list(headers))
    made.method, made.target, made.host = b"GET", target, b"example.org"
    return made


def lines(head):
    first, *fields = head.decode().removesuffix("\r\n").split("\r\n")
    return first, dict(field.split(": ", 1) for field in fields)


def test_a_client_is_introduced_and_its_key_kept():
    sent = [
        (b"authorization", b"Bearer k"),
        (b"x-mine", b"1"),
        (b"x-faas-function", b"forged"),
        (b"te", b"x"),
    ]
    first, fields = lines(Passage.of_client(exchange(headers=sent), TARGET, b"/a?b=1", strip_key=True).head)
    assert first == "GET /a?b=1 HTTP/1.1"
    assert fields == {
        "x-faas-function": "hello",
        "x-faas-revision": "3",
        "x-faas-deadline": "30000",
        "x-mine": "1",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-host": "example.org",
        "x-forwarded-prefix": "/invoke/hello",
        "x-forwarded-proto": "http",
    }


def test_an_authorization_that_is_none_of_ours_is_passed_on():
    sent = [(b"authorization", b"Basic abc")]
    _, fields = lines(Passage.of_client(exchange(headers=sent), TARGET, b"/a?b=1", strip_key=False).head)
    assert fields["authorization"] == "Basic abc"


def test_proxies_before_us_are_remembered():
    sent = [
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-forwarded-for", b"198.51.100.8"),
        (b"x-forwarded-prefix", b"/faas"),
        (b"x-forwarded-proto", b"https"),
    ]
    _, fields = lines(Passage.of_client(exchange(headers=sent), TARGET, b"/a?b=1", strip_key=True).head)
    assert fields["x-forwarded-for"] == "198.51.100.7, 198.51.100.8, 192.0.2.1"
    assert fields["x-forwarded-prefix"] == "/faas/invoke/hello"
    assert fields["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("said", [b"http", b"gopher", b"https, http", b""])
def test_what_is_not_said_to_have_come_over_tls_has_not(said):
    sent = [(b"x-forwarded-proto", said)]
    _, fields = lines(Passage.of_client(exchange(headers=sent), TARGET, b"/a?b=1", strip_key=True).head)
    assert fields["x-forwarded-proto"] == "http"


@pytest.mark.parametrize(
    ("target", "path", "root"),
    [
        (b"/invoke/hello", b"/", "/invoke/hello"),
        (b"/invoke/hello?q=/", b"/?q=/", "/invoke/hello"),
        (b"/invoke/hello/", b"/", "/invoke/hello"),
        (b"/functions/hello/x", b"/x", "/functions/hello"),
        (b"/x", b"/x", ""),
    ],
)
def test_the_root_is_what_is_not_passed_on(target, path, root):
    _, fields = lines(Passage.of_client(exchange(target), TARGET, path, strip_key=True).head)
    assert fields["x-forwarded-prefix"] == root


def test_what_another_lane_has_said_of_the_client_stays():
    first_lane = Passage.of_client(exchange(), TARGET, b"/a?b=1", strip_key=True)
    first, fields = lines(first_lane.forwarded(b"/_node/invoke", b"x-martlet-revision: hello@3\r\n"))
    assert first == "GET /_node/invoke/a?b=1 HTTP/1.1"
    sent = [(name.encode(), value.encode()) for name, value in fields.items()]
    relayed = exchange(b"/_node/invoke/a?b=1", sent, peer="")
    assert lines(Passage.of_lane(relayed, TARGET, b"/a?b=1").head) == lines(first_lane.head)
