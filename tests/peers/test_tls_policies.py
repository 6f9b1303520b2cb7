"""What is demanded of Postfix and Exim as next hops: fingerprints, names, and maps that say so."""

from __future__ import annotations

import hashlib
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.peers.harness import maildir
from tests.peers.harness.certificates import Authority
from tests.peers.harness.exim import Exim
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain

pytestmark = pytest.mark.peer


@dataclass(frozen=True)
class Servers:
    postfix: Postfix
    exim: Exim
    authority: Authority
    boxes: dict[str, Path]  # by domain
    prints: dict[str, str]  # of the certificate and of the key of Postfix, and of nothing


@pytest.fixture(scope="module")
def servers(place: Path, authority: Authority) -> Iterator[Servers]:
    chain, key = authority.certificate("mail.postfix.example")
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    whole = hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    postfix = Postfix(place / "postfix", settings={
        **maildir_settings(place / "mail", "postfix.example", ("a",)), "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(chain), "smtpd_tls_key_file": str(key),
        "smtpd_relay_restrictions": "reject_unauth_destination",
    })  # fmt: skip
    exim = Exim(
        place / "exim", domain="exim.example", mailboxes=("a",), certificate=authority.certificate("mail.exim.example")
    )
    exim.start()
    try:
        with postfix:
            boxes = {"postfix.example": place / "mail" / "a", "exim.example": exim.mailbox("a")}
            prints = {"whole": whole, "key": hashlib.sha256(spki).hexdigest(), "none": "00" * 32}
            yield Servers(postfix, exim, authority, boxes, prints)
    finally:
        exim.stop()


def _node(servers: Servers, folder: Path, hops: list[dict[str, object]], **more: object) -> Node:
    return Node(folder, {
        "domain": [local_domain("example.test")],
        "next_hop": [{"host": "127.0.0.1", **each} for each in hops],
        "outbound": {"tls": {"ca_file": str(servers.authority.file)}},
        "log": {"format": "json"},
        **more,
    })  # fmt: skip


def _send(node: Node, domain: str, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        client.sendmail("sender@example.test", [f"a@{domain}"], f"Subject: {subject}\r\n\r\nhello\r\n")


def _policy(node: Node, outcome: str) -> dict[str, object]:
    node.wait_log(f'"outcome":"{outcome}"')
    (found, *_) = node.logged("attempted", outcome=outcome)
    assert isinstance(found["tls_policy"], dict), found
    return found["tls_policy"]


@pytest.mark.parametrize("print_of", ["whole", "key"])
def test_a_fingerprint_of_certificate_or_key(servers: Servers, place: Path, print_of: str) -> None:
    hop = {
        "domain": "postfix.example", "port": servers.postfix.port, "tls": "fingerprint",
        "tls_fingerprints": [servers.prints["none"], servers.prints[print_of]],
    }  # fmt: skip
    with _node(servers, place / print_of, [hop]) as node:
        _send(node, "postfix.example", f"by {print_of}")
        maildir.wait(servers.boxes["postfix.example"], of=f"by {print_of}")
        policy = _policy(node, "relayed")
        assert (policy["level"], policy["held"]) == ("fingerprint", True)


def test_another_fingerprint_and_another_name_keep_mail(servers: Servers, place: Path) -> None:
    hops: list[dict[str, object]] = [
        {"domain": "postfix.example", "port": servers.postfix.port, "tls": "fingerprint",
         "tls_fingerprints": servers.prints["none"]},
        {"domain": "exim.example", "port": servers.exim.port, "tls": "verify", "tls_names": ["mail.other.example"]},
    ]  # fmt: skip
    with _node(servers, place / "kept", hops) as node:
        for domain, failure in (
            ("postfix.example", "certificate-not-trusted"), ("exim.example", "certificate-host-mismatch")
        ):  # fmt: skip
            before = len(maildir.raw(servers.boxes[domain]))
            _send(node, domain, "kept back")
            said = node.wait_trace(f"a@{domain}", "4.7.5", "did not hold")
            assert failure in said
            assert len(maildir.raw(servers.boxes[domain])) == before


def test_maps_say_how_much_tls_is_demanded(servers: Servers, place: Path) -> None:
    """As smtp_tls_policy_maps; an entry that changes counts from the next connection on."""
    ports = {"postfix.example": servers.postfix.port, "exim.example": servers.exim.port}
    hops: list[dict[str, object]] = [{"domain": domain, "port": port} for domain, port in ports.items()]
    table = place / "policies"

    def write(exim: str) -> None:
        table.write_text(
            f"[127.0.0.1]:{ports['postfix.example']} fingerprint match={servers.prints['key'].upper()}\n"
            f"[127.0.0.1]:{ports['exim.example']} {exim}\n"
        )

    write("secure match=mail.else.example servername=mail.exim.example")
    maps = {"map": [{"name": "policies", "kind": "text", "file": str(table)}]}
    with _node(servers, place / "mapped", hops, routing={"tls_policy_maps": ["policies"]}, **maps) as node:
        _send(node, "postfix.example", "by a map")
        maildir.wait(servers.boxes["postfix.example"], of="by a map")
        assert str(_policy(node, "relayed")["source"]).startswith("map policies, [127.0.0.1]:")
        _send(node, "exim.example", "after a change")
        node.wait_trace("a@exim.example", "certificate-host-mismatch")
        write("secure match=mail.exim.example servername=mail.exim.example")
        node.reload()
        node.command("queue", "retry", "a@exim.example", code=None)  # the reload may have tried it already
        maildir.wait(servers.boxes["exim.example"], of="after a change")
        write("sure")
        node.reload()
        node.stop()
        node.start()
        _send(node, "exim.example", "a value that means nothing")
        node.wait_trace("a@exim.example", "4.3.0", "'sure' is not a level of TLS")
