"""A node signs what it sends through Postfix and Exim; OpenDKIM, dkimpy, Mail::DKIM and Exim verify what arrives.

The last hop is a server of the test that notes the octets. Keys come from files, from tables of OpenDKIM and from the
store of keys, and change while the node runs.
"""

from __future__ import annotations

import itertools
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import msgspec
import pytest

from postroad.trust import keyring
from postroad.trust.dkim_key import KeyKind
from postroad.trust.dkim_sign import public_record
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys, KeyState
from postroad.world.clock import SystemClock
from tests.peers.harness import ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import folder, until
from tests.peers.harness.remote import Dialog, Remote, Transaction
from tests.peers.test_dkim import _VERIFY, opendkim, perl
from tests.unit.trust.dkim_parts import ed25519, keys, pem, verify, zone_of

pytestmark = pytest.mark.peer

LATER_S = 1_900_000_000
LARGE = b"".join(b"%07d %s\r\n" % (number, b"x" * 50) for number in range(50_000))
FIELDS = (
    b"From: Ada <ada@%s>\r\nTo: bob@example.net\r\nSubject: %s\r\nDate: Tue, 1 Dec 2026 10:00:00 +0000\r\n"
    b"Message-ID: <%s@example.org>\r\nList-Unsubscribe: <https://example.org/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n"
)
BOTH = [("pass", "r1"), ("pass", "e1")]


@dataclass
class Site:
    home: Path
    node: Node
    remote: Remote

    def send(self, subject: str, body: bytes, to: str, *, author: str = "example.org", **more: object) -> None:
        with smtplib.SMTP("127.0.0.1", self.node.port) as client:
            options = ["BODY=8BITMIME"] if not body.isascii() else []
            named = tuple(each.encode() for each in (author, subject, subject))
            client.sendmail("ada@example.org", [to], FIELDS % named + body, options)

    def arrived(self, subject: str) -> bytes:
        def chosen(transaction: Transaction) -> bool:
            return f"Subject: {subject}\r\n".encode() in transaction.content

        return self.remote.wait_for(chosen).content


def _rule(dialog: Dialog, verb: str, argument: str) -> str | None:
    return "550 5.1.1 nobody" if verb == "RCPT" and "nobody@" in argument else None


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with folder("sg") as home:
        for key in keys():
            (home / f"{key.selector}.pem").write_bytes(pem(key.private))
            (home / f"{key.selector}.pem").chmod(0o600)
        (home / "table.pem").write_bytes(pem(ed25519()))
        (home / "table.pem").chmod(0o640)
        (home / "key.table").write_text(
            f"# keys\nnet r1.example.net:r1:{home}/r1.pem\nany %:any:{home}/%.pem\ned example.com:ed:./table.pem\n"
        )
        (home / "example.info.pem").symlink_to("r1.pem")
        (home / "signing.table").write_text("*@example.net net\n*@sub.*.com\ted:@%\n*@example.info any\n")
        (home / "dns").write_text(
            "".join(f"{each.selector}._domainkey.{each.domain} {public_record(each.private)}\n" for each in keys())
        )
        remote = Remote(_rule)
        plain = Remote(_rule, extensions=("PIPELINING", "SIZE 0"))
        plain.transactions = remote.transactions
        exim = Exim(home / "exim", mailboxes=("ada",), domain="exim.example", next_port=remote.port)
        postfix = Postfix(
            home / "postfix", settings={"relayhost": f"[127.0.0.1]:{remote.port}", "disable_dns_lookups": "yes",
                                        "mynetworks": "127.0.0.0/8", "message_size_limit": "50000000"},
        )  # fmt: skip
        settings = {
            "hostname": "mail.example.org",
            "listener": [relay_listener(ports.port()), mx_listener(ports.port())],
            "relay": {"domains": ["forwarded.test"]},
            "checks": {"exempt_networks": []},
            "dns": {"servers": ["127.0.0.1:1"], "timeout_s": 1},
            "next_hop": [
                next_hop("exim.test", exim.port), next_hop("postfix.test", postfix.port),
                next_hop("example.org", remote.port), next_hop("plain.test", plain.port),
                next_hop("*", remote.port),
            ],
            "dkim": {
                "key": [{"domain": "example.org", "selector": each.selector, "file": str(home / f"{each.selector}.pem")}
                        for each in keys()],
                "arc_seal": "example.org", "key_table": str(home / "key.table"),
                "signing_table": f"refile:{home}/signing.table",
            },
        }  # fmt: skip
        with remote, plain, exim, postfix, Node(home / "n", settings) as node:
            yield Site(home, node, remote)


@pytest.mark.parametrize("hop", ["exim", "postfix", "plain"])
@pytest.mark.parametrize("size", ["small", "large", "eight"])
def test_real_verifiers_pass_what_went_through_a_real_hop(site: Site, hop: str, size: str) -> None:
    bodies = {"small": b"hello \t there\r\n.\r\n\r\n", "large": LARGE, "eight": "Grüße\r\n".encode() * 50}
    subject = f"{hop} {size}"
    site.send(subject, bodies[size], f"bob@{hop}.test")
    got = site.arrived(subject)
    assert [(each.result, each.selector) for each in verify(got, zone_of(keys()), now_s=LATER_S)] == BOTH
    assert got.isascii() is not (size == "eight" and hop != "plain")
    assert opendkim(site.home, got, "Mode v").count("dkim=pass") == 2
    assert perl(site.home, _VERIFY, got, "dkim").startswith(b"rsa-sha256 pass")
    for index in range(2):
        assert dkim.DKIM(got).verify(index, dnsfunc=_dns), index
    if size == "small":
        said = site.node.wait_trace(f"{subject}@example.org", "signed by r1._domainkey.example.org, e1._domainkey")
        assert "PRIVATE" not in said


def _dns(name: bytes, timeout: float = 5) -> bytes | None:
    records = {f"{each.selector}._domainkey.{each.domain}.": public_record(each.private) for each in keys()}
    found = records.get(name.decode())
    return None if found is None else found.encode()


@pytest.mark.parametrize(
    ("author", "signed"),
    [
        ("example.net", "r1._domainkey.r1.example.net"),
        ("sub.example.com", "ed._domainkey.example.com"),
        ("example.info", "any._domainkey.example.info"),
        ("deep.example.org", "r1._domainkey.example.org, e1._domainkey.example.org"),
    ],
)
def test_tables_of_opendkim(site: Site, author: str, signed: str) -> None:
    site.send(f"by {author}", b"x\r\n", "bob@example.test", author=author)
    got = site.arrived(f"by {author}")
    site.node.wait_trace(f"by {author}@example.org", f"signed by {signed}")
    assert (b"i=@sub.example.com;" in got) is (author == "sub.example.com")


def test_an_author_without_a_key(site: Site) -> None:
    site.send("unknown", b"x\r\n", "bob@example.test", author="example.edu")
    assert b"DKIM-Signature" not in site.arrived("unknown")
    site.node.wait_trace("unknown@example.org", "not signed: no key for example.edu")


def test_a_report_of_our_own_is_signed(site: Site) -> None:
    """By the domain above the host's."""
    site.send("to nobody", b"x\r\n", "nobody@example.test")

    def is_report(transaction: Transaction) -> bool:
        return transaction.mail.startswith("FROM:<>") and b"to nobody" in transaction.content

    got = site.remote.wait_for(is_report).content
    assert b"<MAILER-DAEMON@mail.example.org>" in got
    assert [each.result for each in verify(got, zone_of(keys()), now_s=LATER_S)] == ["pass", "pass"]


def test_keys_of_the_store_come_and_go_while_the_node_runs(site: Site) -> None:
    store = KeyStore(site.node.state / "dkim", SystemClock().now_us)
    made = keyring.made("s1", keyring.generate(KeyKind.ED25519, 0), SystemClock().now_us())
    signs = msgspec.structs.replace(made, state=KeyState.SIGNING)

    def put(*stored: keyring.StoredKey) -> None:
        with store.changing():
            store.write(DomainKeys("example.edu", stored))

    def goes_out(number: int, signed: bool) -> bool:
        site.send(f"store {number}", b"x\r\n", "bob@example.test", author="example.edu")
        return (b"s=s1;" in site.arrived(f"store {number}")) is signed

    put(made)  # it waits
    assert goes_out(0, signed=False)
    put(signs)
    counter = iter(range(1, 1000))
    until(lambda: goes_out(next(counter), signed=True), "mail is signed", pause_s=0.5)
    put()
    until(lambda: goes_out(next(counter), signed=False), "mail is not signed any more", pause_s=0.5)
    assert "PRIVATE" not in site.node.log_text()


def test_forwarded_mail_of_a_stranger_is_sealed(site: Site) -> None:
    octets = FIELDS % (b"example.net", b"forwarded", b"forwarded") + b"x\r\n"
    with smtplib.SMTP("127.0.0.1", int(site.node.config["listener"][1]["port"])) as client:
        client.sendmail("ada@example.net", ["bob@forwarded.test"], octets)
    got = site.arrived("forwarded")
    assert got.startswith(b"ARC-Seal: i=1;") and b"DKIM-Signature" not in got
    assert perl(site.home, _VERIFY, got, "arc").startswith(b"pass")
    result, *_ = dkim.ARC(got).verify(dnsfunc=_dns)
    assert result == b"pass"
    site.node.wait_trace("forwarded@example.org", "signed by r1._domainkey.example.org")


def test_a_table_that_is_broken_stays_in_force_as_it_was(site: Site) -> None:
    table = site.home / "signing.table"
    text = table.read_text()
    table.write_text(text + "*@broken\n")
    site.node.wait_log("there is no name of a key behind '*@broken'")
    site.send("old table", b"x\r\n", "bob@example.test", author="example.net")
    assert b"d=r1.example.net;" in site.arrived("old table")
    said = site.node.command("check", code=None)
    assert "signing.table, line 4" in said or "signing.table:4" in said, said
    table.write_text(text.replace("example.net net", "example.net ed"))
    site.node.wait_log("the changed tables are in force")
    tries = itertools.count()

    def is_signed_by_the_new_table() -> bool:  # the other worker looks some seconds later
        name = f"new table {next(tries)}"
        site.send(name, b"x\r\n", "bob@example.test", author="example.net")
        return b"d=example.com;" in site.arrived(name)

    until(is_signed_by_the_new_table, "the new table is in force", pause_s=0.2)
    table.write_text(text)
    site.node.wait_log("the changed tables are in force", 2)
