"""DANE (RFC 7672) with real parts: zones that Knot signs, an Unbound that validates, Postfix and Exim as servers, and
remotes whose certificates are wrong in each way that counts."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.peers.harness import maildir, ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.remote import Remote
from tests.peers.harness.unbound import Unbound, anchors

pytestmark = pytest.mark.peer

_OLD = "3 1 1 " + "ab" * 32  # of a key that is used no more, or not yet


def _ee(chain: Path) -> str:
    """Usage 3: the key of the server."""
    return f"3 1 1 {hashlib.sha256(_key(chain)).hexdigest()}"


def _key(chain: Path) -> bytes:
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class _Certificates:
    """Certificates of an authority that no system trusts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        self._folder = folder
        self._authority = trustme.CA()
        root = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        self.whole = f"2 0 0 {root.public_bytes(Encoding.DER).hex()}"
        key = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.bare_key = f"2 1 0 {key.hex()}"

    def make(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Chain and key."""
        now = datetime.datetime.now(datetime.UTC)
        ends = now - datetime.timedelta(days=3) if expired else None
        made = self._authority.issue_cert(name, not_before=now - datetime.timedelta(days=30), not_after=ends)
        chain, key = self._folder / f"{name}-{expired}.pem", self._folder / f"{name}-{expired}.key"
        chain.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return chain, key

    def context(self, name: str, *, expired: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.make(name, expired=expired))
        return context

    def chain(self, name: str, *, expired: bool = False) -> Path:
        return self._folder / f"{name}-{expired}.pem"


@dataclass(frozen=True)
class World:
    node: Node
    good: Remote  # a certificate for mx.good.example, in time
    old: Remote  # an expired one
    other: Remote  # one for another name
    plain: Remote  # no TLS at all
    named: Remote  # one for the domain authority.example
    postfix: Path  # Maildir
    exim: Path


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    made = _Certificates(place / "certificates")
    port = ports.port()  # of all mail servers, in place of 25
    at = {name: ports.address() for name in ("good", "old", "other", "plain", "named", "postfix")}
    contexts = {
        "good": made.context("mx.good.example"), "old": made.context("mx.old.example", expired=True),
        "other": made.context("mx.elsewhere.example"), "plain": None, "named": made.context("authority.example"),
    }  # fmt: skip
    mail_chain, mail_key = made.make("mx.postfix.example")
    exim_chain, exim_key = made.make("mx.exim.example")
    tlsa = f"_{port}._tcp.mx IN TLSA"

    def zone(where: str, *records: str) -> str:
        return "\n".join(["@ IN MX 10 mx", f"mx IN A {at[where]}", *(f"{tlsa} {record}" for record in records)])

    good, old = _ee(made.chain("mx.good.example")), _ee(made.chain("mx.old.example", expired=True))
    signed = {
        "good.example": zone("good", good),
        "postfix.example": zone("postfix", _ee(mail_chain)),
        "exim.example": f"@ IN MX 10 mx\nmx IN A 127.0.0.1\n{tlsa} {_OLD}\n{tlsa} {_ee(exim_chain)}",  # rolled over
        "authority.example": f"@ IN MX 10 mx.named.authority.example.\nmx.named IN A {at['named']}\n"
        f"_{port}._tcp.mx.named IN TLSA {made.whole}",
        "othername.example": zone("other", made.whole),
        "old.example": zone("old", old),
        "oldname.example": zone("old", made.bare_key),
        "wrong.example": zone("good", _OLD),
        "plain.example": zone("plain", good),
        "next.example": "@ IN MX 10 mx.wrong.example.\n@ IN MX 20 mx.good.example.",
        "none.example": zone("plain"),
        "alias.example": "@ IN MX 10 mx\nmx IN CNAME mx.good.example.",
        "useless.example": zone("other", "0 0 1 " + "cd" * 32, "3 1 9 " + "cd" * 32),
        "uselessplain.example": zone("plain", "1 0 1 " + "cd" * 32),
        "refused.example": zone("good", good),
        "badpostfix.example": zone("postfix", _OLD),
        "badexim.example": f"@ IN MX 10 mx\nmx IN A 127.0.0.1\n{tlsa} {made.whole}",  # has another name
        "bogus.example": zone("good", good),
        "same.example": zone("good"),
    }
    zones = {**signed, "unsigned.example": zone("plain", _OLD), "halfway.example": "@ IN MX 10 mx.wrong.example."}
    postfix = Postfix(
        place / "postfix", address=at["postfix"], port=port,
        settings={
            **maildir_settings(place / "postfix-mail", "postfix.example", ("a",)),
            "smtpd_tls_security_level": "may", "smtpd_tls_cert_file": str(mail_chain),
            "smtpd_tls_key_file": str(mail_key), "smtpd_relay_restrictions": "reject_unauth_destination",
        },
    )  # fmt: skip
    exim = Exim(place / "exim", domain="exim.example", mailboxes=("a",), certificate=(exim_chain, exim_key), port=port)
    with Knot(place / "knot", zones, signed=tuple(signed)) as knot:
        trusted = [each for name in signed for each in anchors(name, knot.port)]
        bad = [
            each.replace(" IN DNSKEY 257 3 13 ", " IN DNSKEY 257 3 13 AAAA") if each.startswith("bogus.") else each
            for each in trusted
        ]
        lines = [f'local-zone: "_{port}._tcp.mx.refused.example." always_refuse']
        unbound = Unbound(
            place / "unbound", dict.fromkeys(zones, knot.port), bad, ready="unsigned.example", lines=lines
        )
        node = Node(place / "node", {
            "dns": {
                "servers": [f"127.0.0.1:{unbound.port}"], "validating": True, "timeout_s": 5, "total_s": 10,
                "error_ttl_s": 0,
            },
            "routing": {"mx_port": port},
            "mx": {"loopback": True},
            "log": {"format": "json"},
            "domain": [local_domain("example.test")],
        })
        remotes = {
            name: Remote(address=at[name], port=port, context=context) for name, context in contexts.items()
        }
        exim.start()
        try:
            with contextlib.ExitStack() as running:
                for each in (unbound, postfix, *remotes.values(), node):
                    running.enter_context(each)
                yield World(node, *remotes.values(), place / "postfix-mail" / "a", exim.mailbox("a"))
        finally:
            exim.stop()


def _send(world: World, domain: str) -> str:
    subject = f"to {domain}."
    with smtplib.SMTP("127.0.0.1", world.node.port, timeout=30) as client:
        client.sendmail("sender@example.test", [f"a@{domain}"], f"Subject: {subject}\r\n\r\nhello\r\n")
    return subject


def _has(remote: Remote, subject: str) -> bool:
    return any(subject.encode() in each.content for each in remote.transactions)


def _attempt(world: World, domain: str, outcome: str) -> dict[str, object]:
    """The first attempt for a domain, from the log."""
    world.node.wait_log(f'"destination":"{domain}"')
    return world.node.logged("attempted", destination=domain, outcome=outcome)[0]


@pytest.mark.parametrize(
    ("domain", "remote", "source"),
    [
        ("good.example", "good", "mx.good.example"),
        ("authority.example", "named", "mx.named.authority.example"),  # usage 2: the domain's name will do
        ("old.example", "old", "mx.old.example"),  # usage 3: time does not count
        ("alias.example", "good", "mx.good.example"),  # the base domain is where the alias leads
        ("next.example", "good", "mx.good.example"),  # the first host was passed over
    ],
)
def test_mail_goes_where_the_records_allow(world: World, domain: str, remote: str, source: str) -> None:
    subject = _send(world, domain)
    taken = getattr(world, remote).wait_for(lambda each: subject.encode() in each.content)
    assert taken.tls
    found = _attempt(world, domain, "relayed")
    policy = found["tls_policy"]
    assert isinstance(policy, dict)
    assert (policy["kind"], policy["domain"], policy["held"]) == ("tlsa", source, True)
    assert found["tls_details"]["verified"] is True  # type: ignore[index]


def test_postfix_and_exim_are_proved(world: World) -> None:
    for domain, box in (("postfix.example", world.postfix), ("exim.example", world.exim)):
        subject = _send(world, domain)
        maildir.wait(box, of=subject)
        found = _attempt(world, domain, "relayed")
        assert found["tls_policy"]["held"] is True and found["tls_policy"]["kind"] == "tlsa"  # type: ignore[index]


@pytest.mark.parametrize(
    ("domain", "remote", "status", "failure"),
    [
        ("wrong.example", "good", "4.7.5", "validation-failure"),
        ("plain.example", "plain", "4.7.4", "starttls-not-supported"),
        ("othername.example", "other", "4.7.5", "certificate-host-mismatch"),
        ("oldname.example", "old", "4.7.5", "certificate-expired"),
        ("uselessplain.example", "plain", "4.7.4", "starttls-not-supported"),
        ("refused.example", "good", "4.7.5", "dnssec-invalid"),
        ("badpostfix.example", "", "4.7.5", "validation-failure"),
        ("badexim.example", "", "4.7.5", "certificate-host-mismatch"),
    ],
)
def test_mail_waits_if_no_host_is_what_the_records_say(
    world: World, domain: str, remote: str, status: str, failure: str
) -> None:
    subject = _send(world, domain)
    found = _attempt(world, domain, "deferred")
    assert found["status"] == status, found
    policy = found["tls_policy"]
    assert isinstance(policy, dict) and policy["held"] is False and policy["failure"] == failure
    assert not remote or not _has(getattr(world, remote), subject)
    assert "did not hold" in world.node.command("trace", f"a@{domain}")


def test_a_bogus_zone_is_not_an_unsigned_one(world: World) -> None:
    subject = _send(world, "bogus.example")
    found = _attempt(world, "bogus.example", "deferred")
    assert found["status"] == "4.4.3" and not _has(world.good, subject)


@pytest.mark.parametrize("domain", ["none.example", "unsigned.example"])
def test_without_records_that_dnssec_proves_mail_goes_as_before(world: World, domain: str) -> None:
    subject = _send(world, domain)
    taken = world.plain.wait_for(lambda each: subject.encode() in each.content)
    assert not taken.tls
    policy = _attempt(world, domain, "relayed")["tls_policy"]
    assert isinstance(policy, dict) and (policy["kind"], policy["held"]) == ("no-policy-found", True)


def test_useless_records_still_demand_tls(world: World) -> None:
    subject = _send(world, "useless.example")
    assert world.other.wait_for(lambda each: subject.encode() in each.content).tls
    policy = _attempt(world, "useless.example", "relayed")["tls_policy"]
    assert isinstance(policy, dict) and (policy["held"], policy["failure"]) == (True, "tlsa-invalid")


def test_a_policy_keeps_nobody_elses_mail_from_the_host(world: World) -> None:
    """The host of wrong.example is also the one of same.example, which has no TLSA records, and of halfway.example,
    whose MX records are not signed."""
    _send(world, "wrong.example")
    for domain in ("same.example", "halfway.example"):
        subject = _send(world, domain)
        assert world.good.wait_for(lambda each, subject=subject: subject.encode() in each.content).tls
