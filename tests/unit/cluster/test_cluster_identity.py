"""Machines of a cluster know each other by certificates, and nobody else is let in."""

import socket
import ssl
import threading
from contextlib import closing

import pytest

from martlet.cluster.authority import Authority, new_request
from martlet.cluster.identity import Identity
from martlet.cluster.joining import admit, begin
from martlet.cluster.token import Token
from martlet.errors import Conflict, Invalid, Unauthenticated

FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    identity = Identity(tmp_path_factory.mktemp("first"))
    begin(identity, FIRST)
    return identity


def member(first, folder, node=SECOND):
    """Returns the identity of a machine that has joined, as `join` does it, without the way between them."""
    token = Token.new(Authority.of(first).secret)
    key, request = new_request(node)
    authority, certificate, signature = admit(first, token.name, request.decode(), token.sign(request))
    token.check(signature, authority.encode(), certificate.encode())
    identity = Identity(folder)
    identity.write(identity.authority, authority.encode())
    identity.write(identity.certificate, certificate.encode())
    identity.write(identity.key, key)
    return identity


def shake_hands(server, client, name=FIRST):
    """Returns what a client hears from a server after both have proved who they are."""
    ours, theirs = socket.socketpair()

    def greet():
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.sendall(b"welcome")
        except (ssl.SSLError, ConnectionError):
            theirs.close()

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        with closing(ours), client.wrap_socket(ours, server_hostname=name) as connection:
            return connection.recv(100)
    finally:
        thread.join()


def test_members_of_a_cluster_let_each_other_in(first, tmp_path):
    second = member(first, tmp_path)
    second.check()
    assert shake_hands(first.for_others(), second.towards_others()) == b"welcome"
    assert shake_hands(second.for_others(), first.towards_others(), SECOND) == b"welcome"


def test_a_client_without_a_certificate_is_refused(first):
    nobody = ssl.create_default_context(cafile=str(first.authority))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(first.for_others(), nobody)


def test_a_member_of_another_cluster_is_refused(first, tmp_path):
    stranger = Identity(tmp_path)
    begin(stranger, SECOND)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(first.for_others(), stranger.towards_others())
    stranger.authority.write_bytes(first.authority.read_bytes())  # it believes us, and we do not believe it
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(first.for_others(), stranger.towards_others())


def test_a_member_at_the_address_of_another_is_not_taken_for_it(first, tmp_path):
    second = member(first, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(second.for_others(), first.towards_others(), FIRST)


def test_a_machine_without_certificates_is_told_how_to_get_one(tmp_path):
    with pytest.raises(Invalid, match="martlet cluster join"):
        Identity(tmp_path).check()


def test_a_cluster_begins_once_on_a_machine(first):
    with pytest.raises(Conflict):
        begin(first, FIRST)


def test_only_who_holds_the_key_of_the_cluster_admits(first, tmp_path):
    with pytest.raises(Conflict, match="another machine"):
        Authority.of(member(first, tmp_path))


def test_secrets_are_readable_by_their_user_only(first):
    assert {file.stat().st_mode & 0o777 for file in first.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("life", [-5, 3600])
def test_a_token_admits_until_it_expires(first, life):
    token = Token.parse(str(Token.new(Authority.of(first).secret, life)))
    _, request = new_request(SECOND)
    asked = token.name, request.decode(), token.sign(request)
    if life > 0:
        assert admit(first, *asked)[0].encode() == first.authority.read_bytes()
    else:
        with pytest.raises(Unauthenticated, match="expired"):
            admit(first, *asked)


def test_a_token_cannot_be_made_to_last_nor_used_for_another_request(first):
    token = Token.new(Authority.of(first).secret, 60)
    (_, request), (_, other) = new_request(SECOND), new_request(FIRST)
    later = f"{int(token.name.partition('.')[0]) + 9999}.{token.name.partition('.')[2]}"
    for name, sent in ((later, request), (token.name, other)):
        with pytest.raises(Unauthenticated):
            admit(first, name, sent.decode(), token.sign(request))


@pytest.mark.parametrize("text", ["", "martlet-1", "martlet-1.1.2", "martlet-2.1.2.3", "martlet-1.1.2.3/4"])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(Invalid, match="martlet cluster token"):
        Token.parse(text)


@pytest.mark.parametrize("name", ["*", "a.b", "", "A"])
def test_certificates_are_for_ids_of_nodes_only(first, name):
    try:
        _, request = new_request(name)
    except ValueError:
        return  # no such request can be made
    with pytest.raises(Invalid):
        Authority.of(first).sign(request)
