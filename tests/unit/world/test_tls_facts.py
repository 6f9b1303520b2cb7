"""What a handshake has shown: the facts of both sides, in memory; odd certificates."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postroad.mail.tls_details import TlsDetails, details
from postroad.world import tls_facts
from postroad.world.tls import (
    NOBODY,
    ClientCertificatePolicy,
    ClientCertificates,
    ClientTls,
    ClientTlsOptions,
    Proof,
    ServerTls,
    ServerTlsOptions,
    server_tls,
)
from postroad.world.tls_facts import TlsFacts, facts, facts_of, read_certificate
from tests.unit.world.test_tls import issue, shake, trusting

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_of(authority: trustme.CA, folder: Path, asked: ClientCertificatePolicy = NOBODY) -> ServerTls:
    options = ServerTlsOptions(
        (issue(authority, folder, "1", "a.example"), issue(authority, folder, "2", "b.example")),
        askings=(NOBODY, asked),
    )
    made = server_tls(options)
    assert isinstance(made, ServerTls), made
    return made


@pytest.mark.parametrize("name", ["a.example", "b.example"])
def test_both_sides_without_a_client_certificate(authority: trustme.CA, tmp_path: Path, name: str) -> None:
    server = server_of(authority, tmp_path)
    one, other = shake(server.context(), trusting(authority), name)
    served, used = facts_of(other), facts_of(one)
    assert (served.version, served.cipher, served.bits) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
    assert served.text == used.text == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert served.server_name == used.server_name == name
    assert served.certificate is None and not served.verified and not served.resumed
    assert used.certificate is not None and used.certificate.names == (name,) and used.verified
    der = one.getpeercert(True)
    assert der is not None
    assert used.certificate.sha256 == hashlib.sha256(der).hexdigest() and used.certificate.der == der


def test_no_name_was_asked_for(authority: trustme.CA, tmp_path: Path) -> None:
    context = ClientTls(ClientTlsOptions()).context(Proof.NOTHING)
    assert isinstance(context, ssl.SSLContext)
    one, other = shake(server_of(authority, tmp_path).context(), context, None)
    assert facts_of(other).server_name == ""
    shown = facts_of(one)
    assert shown.certificate is not None and not shown.verified, "what nobody looked at proves nothing"


def test_a_client_certificate_of_a_trusted_root(authority: trustme.CA, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    asked = ClientCertificatePolicy(ClientCertificates.ASKED, str(roots))
    server = server_of(authority, tmp_path, asked)
    context = trusting(authority)
    authority.issue_cert("client.example", "alice@example.org", common_name="Alice").configure_cert(context)
    for name in ("a.example", "b.example"):
        _, other = shake(server.context(asked), context, name)
        shown = facts_of(other)
        assert shown.verified and shown.certificate is not None
        assert shown.certificate.common_name == "Alice" and "CN=Alice" in shown.certificate.subject
        assert shown.certificate.names == ("client.example",) and shown.certificate.mailboxes == ("alice@example.org",)
        assert shown.certificate.issuer != shown.certificate.subject
    _, other = shake(server.context(asked), trusting(authority), "a.example")
    assert facts_of(other).certificate is None and not facts_of(other).verified
    # A listener that does not ask hears of none.
    _, other = shake(server.context(), context, "a.example")
    assert facts_of(other).certificate is None


def test_one_certificate_may_be_trusted_by_itself(authority: trustme.CA, tmp_path: Path) -> None:
    """The roots hold the client's own certificate, not who signed it."""
    issued = trustme.CA().issue_cert("pinned.example")
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(issued.cert_chain_pems[0].bytes())
    asked = ClientCertificatePolicy(ClientCertificates.DEMANDED, str(pinned))
    server = server_of(authority, tmp_path, asked)
    context = trusting(authority)
    issued.configure_cert(context)
    _, other = shake(server.context(asked), context, "a.example")
    shown = facts_of(other)
    assert shown.verified and shown.certificate is not None and shown.certificate.names == ("pinned.example",)


class Transport:
    def __init__(self, ssl_object: Any) -> None:
        self._ssl_object = ssl_object

    def get_extra_info(self, name: str) -> Any:
        return {"ssl_object": self._ssl_object}[name]


def test_of_a_transport(authority: trustme.CA, tmp_path: Path) -> None:
    one, _ = shake(server_of(authority, tmp_path).context(), trusting(authority), "a.example")
    assert facts(Transport(one)) == facts_of(one) and facts(Transport(None)) is None
    assert tls_facts.describe(Transport(one)) == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert tls_facts.describe(Transport(None)) == ""


def self_signed(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, NOW, NOW + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA384())


def der_of(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def test_names_are_printable_and_short() -> None:
    read = read_certificate(der_of(self_signed("evil\r\nReceived: x\u202e\x00")))
    assert read.common_name == "evil??Received: x??"
    assert "\n" not in read.subject and "\r" not in read.issuer and "\0" not in read.subject
    assert read.names == () and read.mailboxes == ()


def test_octets_that_are_no_certificate() -> None:
    read = read_certificate(b"\x30\x03abc")
    assert (read.subject, read.sha256) == ("", hashlib.sha256(b"\x30\x03abc").hexdigest())


def test_what_is_kept_of_the_facts() -> None:
    assert details(TlsFacts("TLSv1.2", "X", 128, "a.example")) == TlsDetails(128, "a.example")
    shown = tls_facts.Certificate("CN=a", "CN=b", "a", (), (), "00ff", b"x")
    kept = details(TlsFacts("TLSv1.2", "X", 128, "", shown, verified=True))
    assert kept == TlsDetails(128, "", "CN=a", "CN=b", "00ff", True)
    assert kept.text == "128 bits, certificate CN=a issued by CN=b (SHA-256 00ff), verified"
    assert TlsDetails(128, "", "CN=a", "CN=a", "00ff").text == (
        "128 bits, certificate CN=a signed by itself (SHA-256 00ff), not verified"
    )
