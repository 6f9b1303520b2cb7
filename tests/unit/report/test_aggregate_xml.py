"""Aggregate reports fit the schema of RFC 9990, whatever strangers have written into what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.report.aggregate_xml import NAMESPACE, AggregateReport, preferred, written
from postroad.report.feedback import DkimSeen, DmarcRow, Period, ReportingNode, SpfSeen, day_of
from postroad.trust import dmarc_record

etree = pytest.importorskip("lxml.etree")

REPORTER = ReportingNode("Example & Sons <mail>", "dmarc@node.example", "mx1.node.example", "https://node.example/")
DAY = 20_787  # 2026-11-30
ROW = DmarcRow(
    "192.0.2.1", "example.com", "reject", False, False, "bounce.example.net", (("policy_test_mode", "t=y"),),
    (DkimSeen("example.com", "s1", "fail", "body hash"),), SpfSeen("bounce.example.net", "softfail"),
)  # fmt: skip
RECORD = dmarc_record.parse("v=DMARC1; p=reject; sp=quarantine; t=y; fo=1:d; adkim=s; ruf=mailto:a@b.example")


def schema() -> Any:
    return etree.XMLSchema(etree.parse(str(Path(__file__).parent / "rfc9990" / "dmarc-2.0.xsd")))


def made(*rows: tuple[DmarcRow, int], record: dmarc_record.DmarcRecord = RECORD, domain: str = "example.com") -> Any:
    octets = written(AggregateReport(REPORTER, Period(DAY), domain, record, rows, ("a < b",), "Postroad"))
    document = etree.fromstring(octets)
    schema().assertValid(document)
    return document


def texts(document: Any, path: str) -> list[str]:
    steps = "/".join(f"d:{step}" for step in path.split("/"))
    return [each.text or "" for each in document.findall(steps, {"d": NAMESPACE})]


def test_a_report_says_what_was_seen() -> None:
    document = made((ROW, 7))
    assert texts(document, "report_metadata/org_name") == ["Example & Sons <mail>"]
    assert texts(document, "report_metadata/report_id") == ["20261130.dmarc.example.com@mx1.node.example"]
    assert texts(document, "report_metadata/date_range/begin") == [str(DAY * 86_400)]
    assert texts(document, "report_metadata/date_range/end") == [str((DAY + 1) * 86_400)]
    assert texts(document, "report_metadata/error") == ["a < b"]
    names = ("p", "sp", "np", "fo", "adkim", "testing")
    published = {name: texts(document, f"policy_published/{name}") for name in names}
    assert published == {"p": ["reject"], "sp": ["quarantine"], "np": ["quarantine"], "fo": ["1:d"], "adkim": ["s"],
                         "testing": ["y"]}  # fmt: skip
    assert texts(document, "record/row/count") == ["7"]
    assert texts(document, "record/row/policy_evaluated/disposition") == ["reject"]
    assert texts(document, "record/row/policy_evaluated/reason/type") == ["policy_test_mode"]
    assert texts(document, "record/auth_results/dkim/human_result") == ["body hash"]
    assert texts(document, "record/auth_results/spf/scope") == ["mfrom"]


def test_tags_that_a_record_does_not_have_have_their_defaults() -> None:
    document = made((ROW, 1), record=dmarc_record.parse("v=DMARC1; p=none"))
    assert [texts(document, f"policy_published/{name}") for name in ("p", "sp", "np", "fo", "aspf")] == [
        ["none"], ["none"], ["none"], ["0"], ["r"],
    ]  # fmt: skip


def test_the_day_of_a_report_is_that_of_utc() -> None:
    assert day_of("2026-11-30") == DAY
    assert Period(DAY).date == "2026-11-30"
    assert day_of("2026-02-30") is None


_text = st.text(max_size=30)


@given(
    st.lists(
        st.tuples(
            st.builds(
                DmarcRow, _text, _text, _text, st.booleans(), st.booleans(), _text,
                st.lists(st.tuples(_text, _text), max_size=3).map(tuple),
                st.lists(st.builds(DkimSeen, _text, _text, _text, _text), max_size=3).map(tuple),
                st.none() | st.builds(SpfSeen, _text, _text, _text),
            ),
            st.integers(1, 2**40),
        ),
        min_size=1, max_size=3,
    ),
    _text, _text,
)  # fmt: skip
def test_any_text_of_a_stranger_fits_the_schema(rows: list[tuple[DmarcRow, int]], domain: str, policy: str) -> None:
    made(*rows, record=dmarc_record.parse(f"v=DMARC1; p={policy}"), domain=domain)


def test_signatures_stand_in_the_order_that_the_rfc_wants() -> None:
    other, failed = DkimSeen("other.example", "a", "pass"), DkimSeen("example.com", "b", "fail")
    relaxed, strict = DkimSeen("example.com", "c", "pass"), DkimSeen("mail.example.com", "d", "pass")
    assert preferred([failed, other, relaxed, strict], "mail.example.com") == [strict, relaxed, other, failed]
    assert len(preferred([other] * 200, "example.com")) == 100
