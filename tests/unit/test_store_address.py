"""What may be written as ``system.store``."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.store_address import EtcdAddress, parse_store


def test_sqlite_is_itself():
    assert parse_store("sqlite") == "sqlite"


def test_every_part_of_an_address_is_read():
    text = "etcd://me:p%40ss@a.example:1,b,[::1]:3/x/y?ca=/ca.pem&cert=/c.pem&key=/k.pem"
    assert parse_store(text) == EtcdAddress(
        endpoints=("a.example:1", "b:2379", "[::1]:3"),
        prefix="/x/y",
        user="me",
        password="p@ss",
        ca="/ca.pem",
        cert=Path("/c.pem"),
        key=Path("/k.pem"),
    )


def test_what_is_left_out_has_a_default():
    assert parse_store("etcd://localhost/") == EtcdAddress(("localhost:2379",), "/martlet")


def test_an_address_is_written_as_it_is_read_with_its_password_masked():
    text = "etcd://me:secret@a:1,b:2/x?ca=system&password_file=/p"
    assert str(parse_store(text)) == text.replace("secret", "***")


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_user_and_password_survive(user, password):
    address = EtcdAddress(("a:1",), user=user, password=password)
    assert parse_store(address.url(password)) == address
    assert parse_store(str(address)).password == "***"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("postgres://a", "write sqlite, or etcd://"),
        (7, "write sqlite, or etcd://"),
        ("etcd://", "write sqlite, or etcd://"),
        ("etcd://a:0", "'a:0' is no endpoint"),
        ("etcd://a:70000", "'a:70000' is no endpoint"),
        ("etcd://a,,b", "'' is no endpoint"),
        ("etcd://a/x y", "the prefix '/x y'"),
        ("etcd://a/x//y", "the prefix '/x//y'"),
        ("etcd://a?password_file=/p", "a password and no user"),
        ("etcd://a?ca=ca.pem", "ca must be the absolute path"),
        ("etcd://a?tls=yes", "there is no option 'tls'; known are ca"),
        ("etcd://a?ca=/c&cert=/c", "cert and key go together"),
        ("etcd://a?cert=/c&key=/k", "cert is for TLS"),
    ],
)
def test_what_is_wrong_is_said(text, why):
    with pytest.raises(ValueError, match=why):
        parse_store(text)


@pytest.mark.parametrize(
    "text", ["etcd://me:secret@", "etcd://me:secret@a:x", "etcd://me:secret@a?b=1", "e://:secret@"]
)
def test_no_refusal_tells_the_password(text):
    with pytest.raises(ValueError) as caught:
        parse_store(text)
    assert "secret" not in str(caught.value)
