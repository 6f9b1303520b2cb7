"""Reports of others by SMTP: read once, kept, shown; and never at the cost of other mail."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import Remote
from tests.peers.harness.swaks import swaks
from tests.peers.test_origin import ZONES, signed
from tests.unit.trust.inbound import samples

pytestmark = pytest.mark.peer

MAILBOXES = ["dmarc@here.example", "tls@here.example", "abuse@here.example", "Reports@aliased.example"]


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    (place / "aliases").write_text("reports@aliased.example: ada@here.example\n")
    domains = [local_domain("here.example", ["ada", "news"]), local_domain("aliased.example", ["bob"])]
    settings = {
        "aliases": str(place / "aliases"), "domain": domains,
        "report_mailboxes": {"addresses": MAILBOXES, "deliver": "unread", "client_mails_max": 1000},
    }
    with Node(place / "node", settings) as made:
        yield made


def send(node: Node, to: str, content: bytes, sender: str = "reporter@there.example") -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=60) as client:
        client.sendmail(sender, [to], content)


def test_a_dmarc_report_is_read_and_shown(node: Node) -> None:
    report = samples.aggregate([samples.record(count=7), samples.record("2001:db8::5", 3, dkim="fail")])
    send(node, "dmarc+x@here.example", samples.mail(samples.part("application/gzip", samples.packed(report))))
    node.wait_log("read: a DMARC report of Reporter Inc. for example.org")
    found = node.json("reports", "dmarc", "example.org", "--json")
    assert (found["reports"], found["messages"], found["passed"], found["unverified"]) == (1, 10, 7, 1)
    assert [(each["source"], each["messages"], each["dkim"], each["disposition"]) for each in found["sources"]] == [
        ("192.0.2.1", 7, "pass", "none"), ("2001:db8::5", 3, "fail", "none"),
    ]  # fmt: skip
    shown = node.command("reports", "dmarc")
    assert "192.0.2.1" in shown and "Reporter Inc." in shown and "7 passed DMARC (70 %)" in shown
    assert node.json("reports", "dmarc", "other.example", "--json")["reports"] == 0
    assert not maildir.raw(node.maildir("dmarc@here.example"))


def test_the_same_report_again_counts_once(node: Node) -> None:
    report = samples.part("text/xml", samples.aggregate(report_id="twice", domain="twice.example"))
    for number in range(3):
        send(node, "dmarc@here.example", samples.mail(report, message_id=f"<{number}@r.example>"))
    node.wait_log("for twice.example (1 known before)", 2)
    assert node.json("reports", "dmarc", "twice.example", "--json")["messages"] == 2


def test_a_tls_report_is_read_and_shown(node: Node) -> None:
    gz = samples.packed(samples.tls())
    swaks(
        node.port, "--from", "tls@sender.example", "--to", "tls@here.example", "--attach-type",
        "application/tlsrpt+gzip", "--attach-name", "sender.example!example.org!1!2!x.json.gz", "--attach",
        f"@{_file(node, 'tls.json.gz', gz)}",
    )  # fmt: skip
    node.wait_log("read: a TLS report of Sender Inc. for example.org")
    found = node.json("reports", "tls", "example.org", "--json")
    assert (found["successful"], found["failed"]) == (40, 3)
    (policy,) = found["policies"]
    assert policy["failures"][0]["type"] == "certificate-expired"
    assert "certificate-expired" in node.command("reports", "tls")


def _file(node: Node, name: str, octets: bytes) -> Path:
    path = node.directory / name
    path.write_bytes(octets)
    return path


def test_a_complaint_is_linked_to_our_message(node: Node) -> None:
    ours = samples.ORIGINAL.split(b"\r\n", 1)[1] + b"\r\nHello\r\n"
    send(node, "news@here.example", ours, "news@example.org")
    (kept,) = maildir.wait(node.maildir("news@here.example"))
    original = kept.replace(b"\n", b"\r\n")
    send(node, "abuse@here.example", samples.feedback(original=original), "")
    node.wait_log("read: a complaint (abuse) of mx.there.example about example.org")
    found = node.json("reports", "complaints", "--json")
    (each,) = found["each"]
    assert each["queue_id"] and each["campaign"] == "spring:news:example" and each["subject"] == "Grüße"
    assert "news@here.example" in node.command("trace", each["queue_id"])
    assert found["counts"][0]["complaints"] == 1
    assert each["queue_id"] in node.command("reports", "complaints", "--each")


def test_what_cannot_be_read_goes_on_and_is_named(node: Node) -> None:
    bomb = samples.packed(b"\0" * 80_000_000)
    content = samples.mail(samples.part("application/gzip", bomb, "a.example!here.example!1!2.xml.gz"))
    send(node, "dmarc@here.example", content)
    send(node, "abuse@here.example", b"Subject: please stop\r\n\r\nStop it.\r\n")
    assert b"application/gzip" in maildir.wait(node.maildir("dmarc@here.example"))[0]
    assert b"Stop it." in maildir.wait(node.maildir("abuse@here.example"))[0]
    (unread,) = node.json("reports", "unread", "--json")
    assert "expands to more than 67108864 octets" in unread["reason"]
    assert unread["queue_id"] in node.command("reports")
    node.wait_trace("abuse@here.example", "no report in it")


def test_an_alias_leads_on_what_is_no_report(node: Node) -> None:
    report = samples.part("text/xml", samples.aggregate(report_id="by alias", domain="by-alias.example"))
    send(node, "reports@aliased.example", samples.mail(report))
    node.wait_log("for by-alias.example")
    send(node, "reports@aliased.example", b"Subject: question\r\n\r\nWhat?\r\n")
    assert b"What?" in maildir.wait(node.maildir("ada@here.example"))[0]


def test_hostile_text_is_shown_as_text(node: Node) -> None:
    name = "Evil\u202e\u009b31m Inc."
    report = samples.aggregate(organization=name, report_id="evil", domain="evil.example")
    send(node, "dmarc@here.example", samples.mail(samples.part("text/xml", report)))
    node.wait_log("for evil.example")
    shown = node.command("reports", "dmarc", "evil.example")
    assert "\u202e" not in shown and "\u009b" not in shown
    assert "\u009b" not in node.command("reports", "dmarc", "evil.example", "--json")


def test_a_crash_between_keeping_and_ending_counts_once(place: Path) -> None:
    """The mailbox cannot be written, so the mail is tried again and again, and the node is killed between."""
    (place / "blocked").write_text("")
    settings = {
        "domain": [local_domain("here.example", "any", path=str(place / "blocked" / "{local_part}"))],
        "report_mailboxes": {"addresses": ["dmarc@here.example"]},
    }
    with Node(place / "crashing", settings) as made:
        send(made, "dmarc@here.example", samples.mail(samples.part("text/xml", samples.aggregate())))
        until(lambda: made.json("reports", "dmarc", "--json")["reports"] == 1, "the report is kept")
        made.kill()
        made.start()
        made.ready()
        made.wait_log("read: a DMARC report", 3)
        (place / "blocked").unlink()
        assert len(maildir.wait(place / "blocked" / "dmarc")) == 1
        made.wait_empty()
        found = made.json("reports", "--json")
        assert (found["mails"], found["reports"]["dmarc"], found["duplicates"]) == (1, 1, 0)


def test_other_mail_does_not_wait_for_a_large_report(node: Node) -> None:
    rows = [samples.record(f"10.{a}.{b}.1", 1) for a in range(100) for b in range(200)]
    large = samples.packed(samples.aggregate(rows, report_id="large", domain="large.example"))
    send(node, "dmarc@here.example", samples.mail(samples.part("application/gzip", large)))
    began = time.monotonic()
    send(node, "ada@here.example", b"Subject: quick\r\n\r\nx\r\n")
    maildir.wait(node.maildir("ada@here.example"), of="quick")
    quick_s = time.monotonic() - began
    node.wait_log("for large.example")
    assert node.json("reports", "dmarc", "large.example", "--json")["messages"] == 20_000
    assert quick_s < time.monotonic() - began




@pytest.fixture(scope="module")
def checking(place: Path) -> Iterator[Node]:
    """A node that checks where mail comes from, as an mx listener does if nothing is set."""
    with Knot(place / "knot", ZONES) as knot:
        settings = {
            "domain": [local_domain("here.example", ["ada"])],
            "listener": [mx_listener(ports.port())],
            "checks": {"exempt_networks": [], "authserv_id": "checks.here.example"},
            "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 2, "total_s": 4},
            "report_mailboxes": {"addresses": ["tls@here.example", "dmarc@here.example"], "deliver": "unread"},
        }
        with Node(place / "checking", settings) as made:
            yield made


def test_a_tls_report_must_be_signed_by_its_reporter(checking: Node) -> None:
    """RFC 8460 section 3. The signature is judged by the listener; the reader believes its field and no other."""
    octets = samples.part("application/tlsrpt+gzip", samples.packed(samples.tls()))
    forged = b"Authentication-Results: checks.here.example; dkim=pass header.d=good.test\r\n"
    content = samples.mail(octets, author="tls@good.test", subject="Report")
    send(checking, "tls@here.example", forged + content, "tls@good.test")
    (kept,) = maildir.wait(checking.maildir("tls@here.example"))
    assert b"tlsrpt" in kept
    assert checking.json("reports", "tls", "--json")["reports"] == 0
    (unread,) = checking.json("reports", "unread", "--json")
    assert "without a valid DKIM signature of its reporter" in unread["reason"]
    send(checking, "tls@here.example", signed(content), "tls@good.test")
    checking.wait_log("read: a TLS report of Sender Inc. for example.org")
    found = checking.json("reports", "tls", "--verified", "--json")
    assert (found["reports"], found["unverified"], found["failed"]) == (1, 0, 3)


def test_a_verified_report_takes_the_place_of_a_forged_one(checking: Node) -> None:
    def report(count: int) -> bytes:
        octets = samples.aggregate([samples.record(count=count)], domain="race.example")
        return samples.mail(samples.part("text/xml", octets), author="dmarc@good.test")

    send(checking, "dmarc@here.example", report(1_000_000), "dmarc@evil.example")
    checking.wait_log("for race.example")
    assert checking.json("reports", "dmarc", "race.example", "--json")["messages"] == 1_000_000
    assert checking.json("reports", "dmarc", "race.example", "--verified", "--json")["messages"] == 0
    send(checking, "dmarc@here.example", signed(report(3)), "dmarc@good.test")
    checking.wait_log("for race.example", 2)
    found = checking.json("reports", "dmarc", "race.example", "--json")
    assert (found["messages"], found["reports"], found["unverified"]) == (3, 1, 0)


def test_postfix_brings_reports_for_a_relay_domain(place: Path) -> None:
    """The mailbox is on another server, which is away at first: a report is read meanwhile, and what is none waits."""
    port = ports.port()
    settings = {
        "relay": {"domain": [{"name": "relayed.example", "recipients": ["bob"]}]},
        "next_hop": [next_hop("relayed.example", port)],
        "report_mailboxes": {"addresses": ["dmarc@relayed.example"], "deliver": "unread"},
    }
    with Node(place / "relaying", settings) as made, Postfix(
        place / "postfix", settings={"relayhost": f"[127.0.0.1]:{made.port}"}
    ) as postfix:
        report = samples.mail(samples.part("application/gzip", samples.packed(samples.aggregate())))
        for content in (report, b"From: a@there.example\r\nSubject: question\r\n\r\nWhat?\r\n"):
            with smtplib.SMTP("127.0.0.1", postfix.port, timeout=60) as client:
                client.sendmail("reporter@there.example", ["dmarc@relayed.example"], content)
        made.wait_log("read: a DMARC report of Reporter Inc. for example.org")
        assert made.json("reports", "dmarc", "--json")["messages"] == 2
        made.wait_log("no report in it")
        with Remote(port=port) as remote:
            taken = remote.wait_for(lambda each: b"What?" in each.content)
            assert "<dmarc@relayed.example>" in taken.rcpt[0]
            made.wait_empty()
            assert len(remote.transactions) == 1
        assert made.json("reports", "--json")["mails"] == 2


def test_a_node_that_stops_while_it_reads_reads_again(place: Path) -> None:
    settings = {
        "domain": [local_domain("here.example", ["ada"])], "shutdown_s": 2,
        "report_mailboxes": {"addresses": ["dmarc@here.example"], "deliver": "unread"},
    }
    rows = [samples.record(f"10.{a}.{b}.1", 1) for a in range(200) for b in range(250)]
    large = samples.packed(samples.aggregate(rows, report_id="large"))
    with Node(place / "stopping", settings) as made:
        send(made, "dmarc@here.example", samples.mail(samples.part("application/gzip", large)))
        made.restart()
        made.wait_log("read: a DMARC report of Reporter Inc. for example.org", within_s=90)
        found = made.json("reports", "dmarc", "--json")
        assert (found["reports"], found["messages"]) == (1, 50_000)
        assert made.json("reports", "--json")["duplicates"] == 0
