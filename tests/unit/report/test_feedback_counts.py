"""What a day's events come to: each message and each connection once, and never our own reports."""

from __future__ import annotations

from typing import Any

import msgspec

from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import DmarcFacts, Evaluation, Found
from postroad.mail.event import Accepted, Attempted, Evaluated, Event, Expanded, Refused
from postroad.mail.tls_policy import PolicyKind, TlsFailure, TlsOutcome
from postroad.report.feedback import DkimSeen, DmarcRow, FeedbackKind, SpfSeen, TlsRow
from postroad.report.feedback_counts import FeedbackCounts, dmarc_row
from postroad.report.own_mail import LISTENER_FEEDBACK

RECORD = "v=DMARC1; p=reject; sp=none; rua=mailto:a@example.com"
FACTS = DmarcFacts("example.com", "fail", "example.com", "example.com", RECORD, "p", "reject", "reject")
FOUND = (
    Found("spf", "fail", "", (("smtp", "mailfrom", "b@bounce.example.com"),)),
    Found("spf", "pass", "", (("smtp", "helo", "mx.example.com"),)),
    Found("dkim", "fail", "body hash", (("header", "d", "Example.COM"), ("header", "s", "s1"))),
    Found("dkim", "permerror", "no d=", ()),
)
EVALUATION = Evaluation("192.0.2.1", "mx", "bounce.example.com", FOUND, (FACTS,), "reject")


def accepted(id: int, *recipients: str, listener: str = "mx") -> Accepted:
    return Accepted(1, id, "", recipients, 1, "", Peer("192.0.2.1", listener=listener))


def counted(
    *commits: list[Event], kinds: tuple[FeedbackKind, ...] = tuple(FeedbackKind), own: tuple[int, ...] = ()
) -> dict[tuple[str, str, Any], int]:
    counts = FeedbackCounts(kinds, ("Reports@node.example",), own, "+")
    for events in commits:
        counts.take(events)
    types: dict[str, Any] = {"dmarc": DmarcRow, "tls": TlsRow}
    return {
        (kind, domain, msgspec.msgpack.decode(row, type=types[kind])): count
        for kind, domain, row, count in counts.taken()[0]
    }


def test_messages_that_are_alike_are_one_row() -> None:
    commit: list[Event] = [accepted(5, "ada@node.example"), Evaluated(1, 5, EVALUATION)]
    row = DmarcRow(
        "192.0.2.1", "example.com", "reject", False, False, "bounce.example.com", (),
        (DkimSeen("example.com", "s1", "fail", "body hash"),), SpfSeen("bounce.example.com", "fail"),
    )  # fmt: skip
    assert counted(commit, commit) == {("dmarc", "example.com", row): 2}


def test_each_author_domain_has_a_row_if_it_has_a_record() -> None:
    other = msgspec.structs.replace(FACTS, author="sub.example.org", policy_domain="example.org")
    none = msgspec.structs.replace(FACTS, author="none.example", policy_domain="", result="none")
    evaluation = msgspec.structs.replace(EVALUATION, dmarc=(FACTS, other, none))
    found = counted([Evaluated(1, 0, evaluation)])
    assert [(domain, row.header_from) for _, domain, row in found] == [
        ("example.com", "example.com"), ("example.org", "sub.example.org"),
    ]  # fmt: skip


def test_a_disposition_that_is_not_the_policy_has_a_reason() -> None:
    # RFC 9990 §2.1.1.10
    testing = msgspec.structs.replace(FACTS, applied="quarantine")
    cases = (
        (FACTS, "reject", "", "reject", ()),
        (FACTS, "none", "", "none", (("local_policy", ""),)),
        (FACTS, "none", "trusted_forwarder", "none", (("trusted_forwarder", "told"),)),
        (FACTS, "none", "made_up", "none", (("other", "told"),)),
        (testing, "quarantine", "", "quarantine", (("policy_test_mode", ""),)),
        (msgspec.structs.replace(FACTS, result="temperror"), "none", "", "none",
         (("other", "the result of DMARC is temperror"),)),
        (msgspec.structs.replace(FACTS, result="pass", dkim_aligned=True), "none", "", "pass", ()),
        (msgspec.structs.replace(FACTS, result="pass", author="sub.example.com"), "none", "", "none", ()),
        (msgspec.structs.replace(FACTS, result="pass", record="v=DMARC1; p=none"), "none", "", "none", ()),
    )  # fmt: skip
    for facts, disposition, override, wanted, reasons in cases:
        evaluation = msgspec.structs.replace(
            EVALUATION, disposition=disposition, override=override, comment="told", dmarc=(facts,)
        )
        row = dmarc_row(evaluation, facts)
        assert (row.disposition, row.reasons) == (wanted, reasons)


def test_with_the_null_sender_spf_is_that_of_helo() -> None:
    helo = Found("spf", "pass", "", (("smtp", "helo", "mx.example.com"),))
    evaluation = msgspec.structs.replace(EVALUATION, sender_domain="", found=(helo,))
    assert dmarc_row(evaluation, FACTS).spf == SpfSeen("mx.example.com", "pass")
    assert dmarc_row(msgspec.structs.replace(evaluation, sender_domain="a.example"), FACTS).spf is None


def test_mail_to_report_mailboxes_is_not_reported_on() -> None:
    report: list[Event] = [accepted(5, "reports@NODE.example"), Evaluated(1, 5, EVALUATION)]
    both: list[Event] = [accepted(6, "reports@node.example", "ada@node.example"), Evaluated(1, 6, EVALUATION)]
    peer = Peer("192.0.2.1")
    refused: list[Event] = [
        Evaluated(1, 0, EVALUATION), Refused(1, 0, peer, "DATA", "550", recipients=("reports@node.example",)),
    ]  # fmt: skip
    other: list[Event] = [
        Evaluated(1, 0, EVALUATION), Refused(1, 0, peer, "DATA", "550", recipients=("ada@node.example",)),
    ]  # fmt: skip
    extended: list[Event] = [accepted(7, "reports+tls@node.example"), Evaluated(1, 7, EVALUATION)]
    assert counted(report) == {} == counted(extended)
    assert counted(refused) == {}
    assert list(counted(both).values()) == [1]
    assert list(counted(other).values()) == [1]


def test_mail_that_an_alias_leads_on_from_a_report_mailbox_is_not_reported_on() -> None:
    """The history names those who get it in the end."""
    led = Expanded(1, 5, "Reports+a@node.example", ("team@node.example",))
    on = Expanded(1, 5, "team@node.example", ("ada@node.example", "bob@node.example"))
    judged = Evaluated(1, 5, EVALUATION)
    assert counted([accepted(5, "team@node.example"), led, judged]) == {}
    assert counted([accepted(5, "ada@node.example", "Bob@node.example"), led, on, judged]) == {}
    assert len(counted([accepted(5, "ada@node.example"), on, judged])) == 1
    both = Expanded(1, 5, "sales@node.example", ("team@node.example",))
    assert len(counted([accepted(5, "team@node.example"), led, both, judged])) == 1
    ring = Expanded(1, 5, "ada@node.example", ("ada@node.example",))
    assert len(counted([accepted(5, "ada@node.example"), ring, judged])) == 1


def test_the_record_that_was_seen_last_counts() -> None:
    counts = FeedbackCounts(tuple(FeedbackKind), ())
    for at_us, record in ((5, "new"), (3, "old")):
        evaluation = msgspec.structs.replace(EVALUATION, dmarc=(msgspec.structs.replace(FACTS, record=record),))
        counts.take([Evaluated(at_us, 0, evaluation)])
    assert counts.taken()[1] == {"example.com": (5, "new")}
    assert counts.taken() == ([], {})


HELD = TlsOutcome("dane", PolicyKind.TLSA, "DANE", "mx.example.com", session_us=7, own_address="198.51.100.1",
                  lines=("3 1 1 ab",))  # fmt: skip


def attempted(id: int, policy: TlsOutcome | None, *tries: Try, address: str = "192.0.2.1") -> list[Event]:
    attempt = Attempt(
        Outcome.RELAYED, Reach.SESSION, "2.0.0", remote_name="mx.example.com", remote_address=address,
        tries=tries, policy=policy,
    )  # fmt: skip
    return [Attempted(1, id, ("a@example.com",), "example.com", attempt)]


def test_a_connection_counts_once() -> None:
    later = msgspec.structs.replace(HELD, session_us=8)
    found = counted(attempted(1, HELD), attempted(2, HELD), attempted(3, later), attempted(4, None))
    ((kind, domain, row),) = found
    assert (kind, domain, row.result, row.policy.domain, row.policy.type) == (
        "tls", "example.com", "", "mx.example.com", "tlsa",
    )  # fmt: skip
    assert list(found.values()) == [2]


def test_hosts_that_were_passed_over_count_as_failures() -> None:
    expired = TlsOutcome("sts", PolicyKind.STS, "", "example.com", False, TlsFailure.CERTIFICATE_EXPIRED, "ended 2020",
                         session_us=3, own_address="198.51.100.1", lines=("mode: enforce",), mx=("*.example.com",))
    passed = Try("mx1.example.com", "192.0.2.9", 25, Outcome.DEFERRED, "4.7.5", policy=expired)
    found = counted(attempted(1, HELD, passed), attempted(2, HELD, passed))
    results = {row.result: (row.host, row.host_ip, row.sending_ip, row.reason) for _, _, row in found}
    assert results == {
        "": ("", "", "", ""),
        "certificate-expired": ("mx1.example.com", "192.0.2.9", "198.51.100.1", "ended 2020"),
    }
    assert set(found.values()) == {1}


def test_connections_of_our_own_reports_do_not_count() -> None:
    # RFC 8460 §3
    own: list[Event] = [accepted(9, "tls@example.com", listener=LISTENER_FEEDBACK)]
    assert counted(own, attempted(9, HELD)) == {}
    assert counted(attempted(9, HELD), own=(9,)) == {}


def test_a_next_hop_is_reported_under_its_own_name() -> None:
    attempt, address = (
        Attempt(Outcome.RELAYED, Reach.SESSION, "2.0.0", policy=msgspec.structs.replace(HELD, domain=domain))
        for domain in ("hop.example", "[192.0.2.1]")
    )
    found = counted(
        [Attempted(1, 1, ("a@example.com",), "[hop.example]:25", attempt)],
        [Attempted(1, 1, ("a@example.com",), "[192.0.2.1]:25", address)],
    )
    assert [domain for _, domain, _ in found] == ["hop.example"]


def test_only_what_is_wanted_is_counted() -> None:
    both: list[Event] = [Evaluated(1, 0, EVALUATION), *attempted(1, HELD)]
    assert [key[0] for key in counted(both)] == ["dmarc", "tls"]
    assert [key[0] for key in counted(both, kinds=(FeedbackKind.TLS,))] == ["tls"]
    assert [key[0] for key in counted(both, kinds=(FeedbackKind.DMARC,))] == ["dmarc"]
