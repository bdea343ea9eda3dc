"""The authority of a cluster: who holds its key says which machines belong to it.

Certificates name the id of a node, not an address: machines may move, and whoever answers at an address must prove to
be the node that the registry has there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from martlet.cluster.identity import Identity
from martlet.errors import Conflict, Invalid

AUTHORITY_LIFE = timedelta(days=3650)
NODE_LIFE = timedelta(days=365)
_NODE = re.compile(r"[a-z0-9]{1,63}")
BACKDATED = timedelta(days=1)
"""How far the clock of another machine may be behind."""


class Authority:
    """A certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: Ed25519PrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def begin(cls, identity: Identity) -> Authority:
        """Makes the authority of a new cluster.

        Raises:
            Conflict: this machine belongs to one already.
        """
        if identity.authority.exists():
            raise Conflict(f"this machine is of a cluster already: {identity.authority} says of which")
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Martlet cluster")])
        certificate = (
            _certificate(name, name, key.public_key(), AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, None)
        )
        identity.write(identity.authority_key, _private(key))
        identity.write(identity.authority, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(certificate, key)

    @classmethod
    def of(cls, identity: Identity) -> Authority:
        """Reads it.

        Raises:
            Conflict: its key is on another machine.
        """
        if not identity.authority_key.exists():
            raise Conflict(
                "the key of the cluster is on another machine: ask the one where `martlet cluster init` was run"
            )
        key = serialization.load_pem_private_key(identity.authority_key.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return cls(x509.load_pem_x509_certificate(identity.authority.read_bytes()), key)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def secret(self) -> bytes:
        """What only who holds the key knows; tokens are derived from it."""
        return self._key.private_bytes_raw()

    def sign(self, request: bytes) -> bytes:
        """Returns the certificate (PEM) for a request (PEM) that names the id of a node. Raises `Invalid`."""
        try:
            asked = x509.load_pem_x509_csr(request)
            (name,) = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            node = str(name.value)
            valid = asked.is_signature_valid and _NODE.fullmatch(node)
        except ValueError:
            valid = False
        if not valid:
            raise Invalid("request: it is no request for the certificate of a node", field="request")
        certificate = (
            _certificate(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]),
                self._certificate.subject,
                asked.public_key(),
                NODE_LIFE,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(node)]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, None)
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def new_request(node: str) -> tuple[bytes, bytes]:
    """Returns a new private key for the node of an id, and the request for its certificate (both PEM)."""
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, None)
    return _private(key), request.public_bytes(serialization.Encoding.PEM)


def expiry(certificate: Path) -> datetime:
    """Returns until when a certificate is good."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: object, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
