"""The way of a machine into a cluster: both ends of it."""

from __future__ import annotations

import httpx2

from martlet.cluster.authority import Authority, new_request
from martlet.cluster.identity import Identity
from martlet.cluster.token import Token
from martlet.errors import Conflict, Unauthenticated, Unavailable

PATH = "/cluster/join"
TIMEOUT = 30.0


def admit(identity: Identity, token_name: str, request: str, signature: str) -> tuple[str, str, str]:
    """Returns the certificates of the authority and of a machine that asks (PEM), and the signature of both.

    Args:
        identity: of the machine that holds the authority.
        token_name: of the token that the other one has.
        request: for the certificate (PEM).
        signature: by the token, of the request.

    Raises:
        Conflict: the authority is not here.
        Unauthenticated: the token is not one of this cluster, or has expired.
        Invalid: it is no request for a certificate.
    """
    authority = Authority.of(identity)
    token = Token.named(token_name, authority.secret)
    token.check(signature, request.encode())
    certificate = authority.sign(request.encode())
    return authority.pem.decode(), certificate.decode(), token.sign(authority.pem, certificate)


def join(identity: Identity, node: str, url: str, token: Token) -> None:
    """Gets the certificate of this machine from one that holds the authority, which may be itself.

    Args:
        identity: of this machine; it is written.
        node: its id.
        url: where the other one takes requests.
        token: of the cluster.

    Raises:
        Conflict: this machine holds the authority of another cluster.
        Unavailable: the other one does not answer, or refuses; the message says why.
        Unauthenticated: what answered does not know the token.
    """
    key, request = new_request(node)
    asked = {"token": token.name, "request": request.decode(), "signature": token.sign(request)}
    try:
        answer = httpx2.post(url.rstrip("/") + PATH, json=asked, timeout=TIMEOUT)
        document = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise Unavailable(f"{url} does not answer as a machine of a cluster: {error}") from error
    if answer.status_code != 200:
        raise Unavailable(f"{url} refuses: {document.get('detail', answer.status_code)}")
    authority, certificate = document["authority"].encode(), document["certificate"].encode()
    try:
        token.prove(
            document["signature"], authority, certificate
        )  # whether it is still good the authority says
    except Unauthenticated:
        raise Unauthenticated(
            f"what answers at {url} does not know the token: it is another cluster"
        ) from None
    if identity.authority_key.exists() and identity.authority.read_bytes() != authority:
        raise Conflict(f"this machine holds the key of another cluster itself: {identity.authority_key}")
    identity.write(identity.key, key)
    identity.write(identity.certificate, certificate)
    identity.write(identity.authority, authority)


def begin(identity: Identity, node: str) -> None:
    """Makes a new cluster with this machine in it. Raises `Conflict` where it is of one already."""
    authority = Authority.begin(identity)
    key, request = new_request(node)
    identity.write(identity.key, key)
    identity.write(identity.certificate, authority.sign(request))
