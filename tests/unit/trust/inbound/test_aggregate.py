"""DMARC aggregate reports, in the forms of the RFCs and in those that reporters really write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from postroad.trust.inbound import aggregate
from postroad.trust.inbound.limits import InboundLimits, UnreadableReport
from postroad.trust.inbound.values import COUNT_MAX, TEXT_MAX, InboundAggregate, InboundDkim, InboundRow, InboundSpf
from tests.unit.trust.inbound.samples import BEGIN_S, END_S, record
from tests.unit.trust.inbound.samples import aggregate as report

V2 = ' xmlns="urn:ietf:params:xml:ns:dmarc-2.0"'
ROW = InboundRow(
    "192.0.2.1", 2, "none", "pass", "fail", (), "example.org", "", "",
    (InboundDkim("example.org", "s1", "pass"),), (InboundSpf("bounce.example.org", "", "fail"),),
)  # fmt: skip


def test_the_form_of_rfc_7489() -> None:
    found = aggregate.read(report())
    assert (found.organization, found.email, found.report_id) == ("Reporter Inc.", "dmarc@reporter.example", "r-1")
    assert (found.begin_s, found.end_s, found.policy.domain, found.policy.p) == (BEGIN_S, END_S, "example.org", "none")
    assert found.rows == (ROW,)
    assert found.problems == ()


@pytest.mark.parametrize(
    "octets",
    [
        report(attributes=V2, more="<extension><x:a xmlns:x='urn:x'><x:count>9</x:count></x:a></extension>"),
        report(attributes=' xmlns="http://dmarc.org/dmarc-xml/0.1"', more="<version>1.0</version>"),
        report(prolog=""),
        report(prolog="\ufeff"),
        report(prolog='<?xml version="1.0" encoding="ISO-8859-1"?>'),
        report().replace(b"<feedback", b"<d:feedback xmlns:d='urn:d'").replace(b"/feedback>", b"/d:feedback>"),
        report().decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        report([record(more=f"<x:arc xmlns:x='urn:x'><x:row>{record()}</x:row></x:arc>")], attributes=V2),
        report().replace(b"identifiers>", b"identities>"),
    ],
    ids=["rfc 9990", "old", "bare", "mark", "latin", "prefix", "utf-16", "extension of a record", "identities"],
)
def test_other_forms_say_the_same(octets: bytes) -> None:
    found = aggregate.read(octets)
    assert found.rows == (ROW,)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("octets", "wrong"),
    [
        (b"\r\n \n" + report(), "not well-formed"),
        (report(organization="Ham & Eggs"), "not well-formed"),
        (report(organization="Gr\u00fcn").replace("\u00fc".encode(), b"\xfc"), "not well-formed"),
        (report(organization="a\x0bb"), "not well-formed"),
        (report(prolog='<?xml version="1.0"?><?xml version="1.0"?>'), "not well-formed"),
        (report(attributes=" xsi:type='x'"), "unbound prefix"),
        (report(prolog='<?xml version="1.0" encoding="windows-9999"?>'), "cannot be decoded"),
    ],
)
def test_what_careless_writers_write_is_mended_and_named(octets: bytes, wrong: str) -> None:
    found = aggregate.read(octets)
    assert found.rows == (ROW,)
    assert len(found.problems) == 1 and (wrong in found.problems[0] or "unknown encoding" in found.problems[0])


def test_equal_rows_are_one() -> None:
    found = aggregate.read(report([record(count=2), record(count=3), record("192.0.2.2"), record(count=4)]))
    assert [(row.source, row.count) for row in found.rows] == [("192.0.2.1", 9), ("192.0.2.2", 2)]


def test_several_results_of_one_row() -> None:
    more = (
        "<auth_results><dkim><domain>a.example</domain><result>Fail</result></dkim><dkim><domain>B.example.</domain>"
        "<selector>x</selector><result>pass</result><human_result>fine</human_result></dkim>"
        "<spf><domain>c.example</domain><scope>mfrom</scope><result>hardfail</result></spf></auth_results>"
    )
    reasons = "<reason><type>mailing_list</type><comment>list</comment></reason><reason><type>other</type></reason>"
    text = record().replace("</policy_evaluated>", f"{reasons}</policy_evaluated>")
    begin = text.index("<auth_results>")
    (row,) = aggregate.read(report([f"{text[:begin]}{more}</record>"])).rows
    assert row.reasons == (("mailing_list", "list"), ("other", ""))
    assert row.signatures == (InboundDkim("a.example", "", "fail"), InboundDkim("b.example", "x", "pass", "fine"))
    assert row.senders == (InboundSpf("c.example", "mfrom", "fail"),)


@pytest.mark.parametrize(
    ("octets", "problem", "check"),
    [
        (report(organization=""), "it has no org_name", lambda found: found.organization == "reporter.example"),
        (report(report_id=" "), "it has no report_id", lambda found: found.report_id == ""),
        (report(begin_s="never"), "for which time", lambda found: found.begin_s == 0),
        (report(begin_s=END_S, end_s=BEGIN_S), "ends before it begins", lambda found: found.end_s == BEGIN_S),
        (report([]), "no records", lambda found: found.rows == ()),
        (report([record(count="")]), "how many", lambda found: found.rows[0].count == 0),
        (report([record(count=-5)]), "how many", lambda found: found.rows[0].count == 0),
        (report([record("nowhere")]), "no IP address", lambda found: found.rows[0].source == "nowhere"),
    ],
)
def test_what_is_missing_is_named(octets: bytes, problem: str, check: Callable[[InboundAggregate], bool]) -> None:
    found = aggregate.read(octets)
    assert any(problem in each for each in found.problems), found.problems
    assert check(found)


def test_times_as_text_and_counts_that_are_too_large() -> None:
    found = aggregate.read(report([record(count=10**15)], begin_s="2025-11-30 00:00:00", end_s=f" {END_S}.5 "))
    assert (found.begin_s, found.end_s) == (BEGIN_S, END_S)
    assert found.rows[0].count == COUNT_MAX
    assert aggregate.read(report(begin_s=10**18)).begin_s == 0


@pytest.mark.parametrize(
    ("octets", "wrong"),
    [
        (b"", "no element found"),
        (b"<html><body>x</body></html>", "its root is <html>"),
        (b"<feedback/>", "it has no <report_metadata>"),
        (b"<feedback><report_metadata/></feedback>", "it has no <policy_published>"),
        (report(domain=""), "which domain"),
        (report()[:-40], "not well-formed"),
        (b'<!DOCTYPE feedback [<!ENTITY a "b">]>' + report(prolog=""), "document type declaration"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + report(prolog=""), "document type declaration"),
        (report(prolog=f"<!--{'x' * 600_000}-->"), "tag or comment of more than 262144 octets"),
        (report(attributes=f" a='{'>' * 2_000_000}'"), "tag or comment of more than 262144 octets"),
        (report(["&" * 5_000_000]), "not well-formed"),
        (report(["<a>" * 40 + "</a>" * 40]), "nested more than 30 deep"),
        (report([f"<record>{'<a/>' * 3000}</record>"]), "more than 2000 elements"),
    ],
)
def test_what_cannot_be_read_says_why(octets: bytes, wrong: str) -> None:
    with pytest.raises(UnreadableReport, match=wrong):
        aggregate.read(octets)


def test_records_have_a_limit() -> None:
    octets = report([record()] * 101)
    assert aggregate.read(octets, InboundLimits(records_max=101)).rows[0].count == 202
    with pytest.raises(UnreadableReport, match=r"more than 100 records \(records_max\)"):
        aggregate.read(octets, InboundLimits(records_max=100))


def test_long_texts_are_cut_and_are_one_line() -> None:
    found = aggregate.read(report(organization="x\n\t " * 5000))
    assert len(found.organization) <= TEXT_MAX and "\n" not in found.organization


def test_a_long_report_lets_others_work() -> None:
    rests = []
    aggregate.read(report([record()] * 2000), breathe=lambda: rests.append(1))
    assert len(rests) >= 10


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>&\ufffe\uffff"), max_size=20)


@given(
    st.lists(
        st.tuples(st.ip_addresses().map(str), st.integers(0, 10**9), st.sampled_from(["pass", "fail"]), _TEXT),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_each_message_is_counted_once(rows: list[tuple[str, int, str, str]]) -> None:
    records = [record(source, count, dkim=dkim, more=f"<x>{text}</x>") for source, count, dkim, text in rows]
    found = aggregate.read(report(records))
    assert sum(row.count for row in found.rows) == sum(row[1] for row in rows)
    assert len({replace(row, count=0) for row in found.rows}) == len(found.rows)


@given(st.binary(max_size=300), st.integers(0, 700), st.integers(0, 30))
def test_damaged_reports_are_read_or_refused(octets: bytes, at: int, gone: int) -> None:
    whole = report()
    damaged = whole[:at] + octets + whole[at + gone :]
    try:
        found = aggregate.read(damaged)
    except UnreadableReport as error:
        assert str(error)
    else:
        assert found.policy.domain
