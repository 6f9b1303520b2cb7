"""Reports to other domains, end to end: a node counts a day of its history and sends what the DNS (Knot) asks for, by
mail to a real Postfix and by POST to a real HTTPS server. parsedmarc reads what arrived.

The day is one before yesterday, so that it is over at whatever time the test runs: its events are written into the
history before the node starts.
"""

from __future__ import annotations

import email
import gzip
import json
import smtplib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import msgspec
import pytest

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.evaluation import DmarcFacts, Evaluation, Found
from postroad.mail.event import Attempted, Evaluated, Event
from postroad.mail.tls_policy import PolicyKind, TlsFailure, TlsOutcome
from postroad.report.feedback import FeedbackKind, TlsRow
from postroad.report.feedback_counts import FeedbackCounts
from postroad.store.sqlite import codec
from postroad.store.sqlite.day_events import day_events
from postroad.store.sqlite.dayfile import DAY_US, DayFile, path_of
from postroad.trust.dkim_sign import public_record
from tests.peers.harness import maildir, need, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import own_to, until
from tests.peers.harness.unpacked import CACHE
from tests.peers.test_http import Receiver
from tests.unit.trust.dkim_parts import pem, rsa

DOMAIN = "reports.example"
RECORD = (
    f"v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN},mailto:x@refuser.example,mailto:x@taker.example;"
    f" ruf=mailto:ruf@{DOMAIN}"
)
PARSEDMARC = CACHE / "parsedmarc" / "bin" / "python"


@dataclass(frozen=True)
class World:
    node: Node
    boxes: Path
    receiver: Receiver
    day: int


def _events(at_us: int) -> list[Event]:
    found = (
        Found("spf", "fail", "", (("smtp", "mailfrom", DOMAIN),)),
        Found("dkim", "pass", "", (("header", "d", DOMAIN), ("header", "s", "s1"))),
    )
    passed = DmarcFacts(DOMAIN, "pass", DOMAIN, DOMAIN, RECORD, "", "none", "none", dkim_aligned=True)
    failed = DmarcFacts("sub." + DOMAIN, "fail", DOMAIN, DOMAIN, RECORD, "p", "reject", "reject")
    held = TlsOutcome("may", PolicyKind.STS, "", DOMAIN, session_us=1, own_address="198.51.100.9",
                      lines=("version: STSv1", "mode: testing"), mx=("*." + DOMAIN,))  # fmt: skip
    expired = TlsOutcome("may", PolicyKind.STS, "", DOMAIN, False, TlsFailure.CERTIFICATE_EXPIRED, "ended", True, 2,
                         "198.51.100.9", held.lines, held.mx)  # fmt: skip

    def attempted(policy: TlsOutcome) -> Attempted:
        attempt = Attempt(
            Outcome.RELAYED, Reach.SESSION, "2.0.0", remote_name="mx." + DOMAIN, remote_address="192.0.2.7",
            policy=policy,
        )  # fmt: skip
        return Attempted(at_us, 5, ("a@" + DOMAIN,), DOMAIN, attempt)

    evaluation = Evaluation("192.0.2.1", "mx", DOMAIN, found, (passed,))
    return [
        Evaluated(at_us, 0, evaluation), Evaluated(at_us, 0, evaluation),
        Evaluated(at_us, 0, Evaluation("192.0.2.2", "mx", "", found[:1], (failed,), "reject")),
        attempted(held), attempted(held), attempted(expired),
    ]  # fmt: skip


def _write_history(directory: Path, day: int) -> None:
    directory.mkdir(parents=True)
    at_us = day * DAY_US + 3_600_000_000
    file = DayFile(path_of(directory, at_us, 0))
    rows = [codec.join_events([codec.encode_events([event])]) for event in _events(at_us)]
    file.append([(place + 1, at_us, row) for place, row in enumerate(rows)])
    file.close()


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    receiver = Receiver()
    receiver.authority.cert_pem.write_to_path(str(place / "authority.pem"))
    port = ports.port()
    tlsrpt = f"v=TLSRPTv1\\;rua=mailto:tls@{DOMAIN},https://localhost:{receiver.port}/tls"
    zones = {
        DOMAIN: f"""
            @ IN MX 10 mx
            mx IN A 127.0.0.1
            @ IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
            _dmarc IN TXT "{RECORD.replace(';', chr(92) + ';')}"
            _smtp._tls IN TXT "{tlsrpt}\"""",
        "taker.example": f"""
            @ IN MX 10 mx.{DOMAIN}.
            {DOMAIN}._report._dmarc IN TXT "v=DMARC1\\; rua=mailto:taken@taker.example\"""",
        "refuser.example": f"@ IN MX 10 mx.{DOMAIN}.",
        "localhost": "@ IN A 127.0.0.1",
        "example": "",
    }
    (place / "s1.pem").write_bytes(pem(rsa()))
    (place / "s1.pem").chmod(0o600)
    boxes = place / "boxes"
    boxes.mkdir()
    own_to(boxes, "nobody")
    tables = place / "boxes.table"
    tables.write_text("".join(f"{name} {name}/\n" for name in (
        f"ada@{DOMAIN}", f"dmarc@{DOMAIN}", f"tls@{DOMAIN}", f"ruf@{DOMAIN}", "taken@taker.example", "x@taker.example",
        "x@refuser.example",
    )))  # fmt: skip
    uid = str(boxes.stat().st_uid)
    postfix = Postfix(place / "postfix", port=port, settings={
        "virtual_mailbox_domains": f"{DOMAIN} taker.example refuser.example", "virtual_mailbox_base": str(boxes),
        "virtual_mailbox_maps": f"texthash:{tables}", "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{uid}", "virtual_gid_maps": f"static:{uid}",
    })  # fmt: skip
    postfix.start()
    day = int(time.time()) // 86_400 - 2
    try:
        with Knot(place / "knot", zones) as knot:
            node = Node(place / "node", {
                "hostname": "mx.node.example",
                "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 3, "total_s": 6},
                "routing": {"mx_port": port, "tls": "sts"}, "mx": {"loopback": True},
                "feedback": {
                    "organization": "Node & Söhne", "contact": "reports@node.example", "spread_s": 0,
                    "post_ca_file": str(place / "authority.pem"), "post_private": True, "failures": True,
                },
                "checks": {"exempt_networks": []},
                "dkim": {"key": [{"domain": "node.example", "selector": "s1", "file": str(place / "s1.pem")}]},
                "listener": [mx_listener(ports.port())],
                "domain": [local_domain("node.example")],
            })  # fmt: skip
            _write_history(node.state / "history", day)
            with node:
                yield World(node, boxes, receiver, day)
    finally:
        postfix.stop()
        receiver.server.shutdown()


def _attachment(octets: bytes) -> tuple[str, bytes]:
    parts = [each for each in email.message_from_bytes(octets).walk() if each.get_filename()]
    payload = parts[0].get_payload(decode=True)
    assert isinstance(payload, bytes)
    return str(parts[0].get_filename()), gzip.decompress(payload)


def test_an_aggregate_report_arrives_where_it_is_wanted(world: World) -> None:
    (octets,) = maildir.wait(world.boxes / f"dmarc@{DOMAIN}", 1, within_s=60)
    name, text = _attachment(octets)
    begin = world.day * 86_400
    assert name.startswith(f"node.example!{DOMAIN}!{begin}!{begin + 86_400}!") and name.endswith(".xml.gz")
    assert b"<count>2</count>" in text and b"<header_from>sub.reports.example</header_from>" in text
    (taken,) = maildir.wait(world.boxes / "taken@taker.example", 1, within_s=30)
    assert _attachment(taken) == (name, text)  # the same report, to the mailbox that the taker has named
    assert not maildir.raw(world.boxes / "x@refuser.example")
    assert not maildir.raw(world.boxes / "x@taker.example")


def test_a_tls_report_arrives_by_mail_and_by_https(world: World) -> None:
    (octets,) = maildir.wait(world.boxes / f"tls@{DOMAIN}", 1, within_s=60)
    name, text = _attachment(octets)
    assert name.endswith(".json.gz")
    ((fields, body),) = world.receiver.at("/tls")
    assert fields["content-type"] == "application/tlsrpt+gzip"
    assert gzip.decompress(body) == text
    (policy,) = json.loads(text)["policies"]
    assert policy["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 1}
    assert policy["failure-details"][0]["result-type"] == "certificate-expired"


def test_what_is_sent_is_signed(world: World) -> None:
    """RFC 8460 §3: TLS reports without a signature of the submitter are thrown away."""
    def record(name: bytes, timeout: float = 5) -> bytes:
        return public_record(rsa()).encode() if name == b"s1._domainkey.node.example." else b""

    for box in (f"dmarc@{DOMAIN}", f"tls@{DOMAIN}"):
        octets = maildir.wait(world.boxes / box, 1, within_s=60)[0].replace(b"\n", b"\r\n")
        assert dkim.verify(octets, dnsfunc=record)
        signature = octets[octets.index(b"DKIM-Signature:") :].partition(b"\r\nReceived")[0]
        assert b"d=node.example" in signature and b" l=" not in signature
    assert b"tls-report-domain" in signature.lower() and b"tls-report-submitter" in signature.lower()


def test_the_commands_say_what_was_sent(world: World) -> None:
    maildir.wait(world.boxes / f"tls@{DOMAIN}", 1, within_s=60)

    def states() -> dict[str, str]:
        return {each["destination"]: each["state"] for each in world.node.json("reports", "sent")}

    until(lambda: "waiting" not in states().values() and "begun" not in states().values(), "all is sent", within_s=30)
    found = states()
    assert found.pop("mailto:x@refuser.example") == "failed"
    assert set(found.values()) == {"sent"} and len(found) == 4
    rows = world.node.json("reports", "sent", DOMAIN)
    (row,) = [each for each in rows if each["destination"] == f"mailto:tls@{DOMAIN}"]
    world.node.wait_trace(row["id"], f"tls@{DOMAIN}", "relayed")


def test_nothing_is_sent_twice_over_restarts_and_crashes(world: World) -> None:
    maildir.wait(world.boxes / f"dmarc@{DOMAIN}", 1, within_s=60)
    maildir.wait(world.boxes / f"tls@{DOMAIN}", 1, within_s=60)
    world.node.wait_empty()
    world.node.kill()
    world.node.start()
    world.node.restart()
    time.sleep(3)
    names = (f"dmarc@{DOMAIN}", f"tls@{DOMAIN}", "taken@taker.example")
    assert [len(maildir.raw(world.boxes / name)) for name in names] == [1, 1, 1]
    assert len(world.receiver.at("/tls")) == 1


def test_a_failure_is_told_at_once_and_counted(world: World) -> None:
    before = len(maildir.raw(world.boxes / f"ruf@{DOMAIN}"))
    with smtplib.SMTP("127.0.0.1", world.node.port, timeout=20) as client:
        for number in range(3):
            client.sendmail(
                f"forger@{DOMAIN}", ["ada@node.example"],
                f"From: Boss <boss@{DOMAIN}>\r\nSubject: pay {number} now\r\n\r\nplease\r\n",
            )  # fmt: skip
    (octets,) = maildir.wait(world.boxes / f"ruf@{DOMAIN}", before + 1, within_s=30)  # one for three that are alike
    assert b"Feedback-Type: auth-failure" in octets and b"Identity-Alignment: dkim, spf" in octets
    assert b'SPF-DNS: txt : reports.example : "v=spf1 ip4:192.0.2.0/24 -all"' in octets.replace(b"\n ", b" ")
    assert b"boss@" not in octets and b"pay" not in octets and b"please" not in octets
    until(lambda: sum(_counted_today(world, FeedbackKind.DMARC).values()) == 3, "three are counted", within_s=20)


def _counted_today(world: World, kind: FeedbackKind) -> dict[bytes, int]:
    """The rows about the domain, as tomorrow's report would have them."""
    counts = FeedbackCounts(tuple(FeedbackKind), ())
    for events in day_events(world.node.state / "history", world.node.state / "spool", int(time.time()) // 86_400):
        counts.take(events)
    return {row: count for of, domain, row, count in counts.taken()[0] if (of, domain) == (kind.value, DOMAIN)}


def test_connections_are_counted_and_those_of_reports_are_not(world: World) -> None:
    """Postfix offers no TLS, and the domain has no policy: mail goes, and a TLS report would say so."""
    maildir.wait(world.boxes / f"tls@{DOMAIN}", 1, within_s=60)
    world.node.wait_empty()
    assert not _counted_today(world, FeedbackKind.TLS)
    for number in range(3):
        text = f"Subject: {number}\n\nhello\n"
        world.node.command("submit", "--from", "bob@node.example", f"ada@{DOMAIN}", text=text)
        maildir.wait(world.boxes / f"ada@{DOMAIN}", number + 1)
    world.node.wait_empty()

    def failures() -> list[tuple[str, str, str]]:
        rows = [msgspec.msgpack.decode(row, type=TlsRow) for row in _counted_today(world, FeedbackKind.TLS)]
        return [(row.policy.type, row.result, row.host) for row in rows]

    until(lambda: _counted_today(world, FeedbackKind.TLS), "a connection is counted", within_s=20)
    assert failures() == [("no-policy-found", "starttls-not-supported", f"mx.{DOMAIN}")]
    # One worker's connection is kept for the next message; two workers may have one each.
    assert sum(_counted_today(world, FeedbackKind.TLS).values()) <= 2


_PARSE = """
import json, sys
import parsedmarc
found = parsedmarc.parse_report_email(open(sys.argv[1], "rb").read(), offline=True)
print(json.dumps({"type": found["report_type"], "report": found["report"]}, default=str))
"""


def _parsed(octets: bytes, place: Path) -> Any:
    if not PARSEDMARC.exists():
        need.missing("parsedmarc is not installed (make peers installs it)")
    place.write_bytes(octets)
    ended = subprocess.run([str(PARSEDMARC), "-c", _PARSE, str(place)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_parsedmarc_reads_them(world: World, place: Path) -> None:
    (octets,) = maildir.wait(world.boxes / f"dmarc@{DOMAIN}", 1, within_s=60)
    found = _parsed(octets, place / "dmarc.eml")
    assert found["type"] == "aggregate"
    report = found["report"]
    assert report["report_metadata"]["org_name"] == "Node & Söhne"
    assert report["policy_published"]["domain"] == DOMAIN and report["policy_published"]["p"] == "reject"
    rows = {each["source"]["ip_address"]: each for each in report["records"]}
    assert rows["192.0.2.1"]["count"] == 2 and rows["192.0.2.1"]["alignment"]["dmarc"]
    assert rows["192.0.2.2"]["policy_evaluated"]["disposition"] == "reject"
    (octets, *_) = maildir.wait(world.boxes / f"ruf@{DOMAIN}", 1, within_s=60)
    found = _parsed(octets, place / "failure.eml")
    assert found["type"] == "failure" or found["type"] == "forensic"
    assert found["report"]["reported_domain"] == DOMAIN
    (octets,) = maildir.wait(world.boxes / f"tls@{DOMAIN}", 1, within_s=60)
    found = _parsed(octets, place / "tls.eml")
    assert found["type"] == "smtp_tls"
    assert found["report"]["organization_name"] == "Node & Söhne"
    assert found["report"]["policies"][0]["failed_session_count"] == 1
