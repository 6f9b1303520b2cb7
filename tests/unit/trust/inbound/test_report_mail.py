"""The mails that bring reports: their parts, wrong types, several reports, and no report at all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust.inbound import report_mail
from postroad.trust.inbound.limits import InboundLimits
from postroad.trust.inbound.values import InboundAggregate, InboundTls
from tests.unit.trust.inbound.samples import ORIGINAL, aggregate, feedback, mail, packed, part, tls, zipped

XML = aggregate()
SINGLE = (
    b"From: a@reporter.example\r\nSubject: Report Domain: example.org\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: application/gzip; name=x.xml.gz\r\nContent-Transfer-Encoding: base64\r\n\r\n"
)


def kinds(content: bytes) -> list[str]:
    found = report_mail.read([content])
    assert found.problems == ()
    return [type(each).__name__.removeprefix("Inbound") for each in found.reports]


@pytest.mark.parametrize(
    "content",
    [
        mail(part("application/gzip", packed(XML), "reporter.example!example.org!1!2.xml.gz")),
        mail(part("application/x-gzip", packed(XML))),
        mail(part("application/octet-stream", packed(XML))),
        mail(part("image/png", packed(XML), "logo.png")),
        mail(part("application/zip", zipped({"a.xml": XML}), "a.zip")),
        mail(part("application/x-zip-compressed", zipped({"a.xml": XML, "readme.txt": b"see a.xml"}))),
        mail(part("application/gzip", zipped({"a.xml": XML}), "a.xml.gz")),
        mail(part("text/xml", XML)),
        mail(part("text/plain", XML)),
        mail(part("text/html", XML)),
        mail(b"Content-Type: text/plain\r\n\r\nSee below.\r\n", part("application/xml", XML)),
        mail(b"Content-Type: text/xml\r\n\r\n" + XML.replace(b"\n", b"\r\n")),
        SINGLE + part("x/y", packed(XML)).partition(b"\r\n\r\n")[2],
        mail(b"Content-Type: message/rfc822\r\n\r\n" + mail(part("text/xml", XML)).replace(b"cut", b"inner")),
        b"Subject: x\r\n\r\n" + XML.replace(b"\n", b"\r\n"),
    ],
)
def test_a_report_is_found_whatever_its_part_is_called(content: bytes) -> None:
    assert kinds(content) == ["Aggregate"]


def test_base64_that_is_cut_by_its_sender() -> None:
    whole = part("text/xml", XML)
    assert kinds(mail(whole.rstrip(b"=\r\n") + b"\r\n")) == ["Aggregate"]


@pytest.mark.parametrize("type", ["application/tlsrpt+gzip", "application/gzip", "application/octet-stream"])
def test_tls_reports(type: str) -> None:
    assert kinds(mail(part(type, packed(tls())))) == ["Tls"]


@pytest.mark.parametrize("type", ["application/tlsrpt+json", "application/json", "text/plain"])
def test_tls_reports_that_are_not_packed(type: str) -> None:
    assert kinds(mail(part(type, tls()))) == ["Tls"]


def test_several_reports_and_what_is_wrong_beside_them() -> None:
    found = report_mail.read([
        mail(
            part("application/zip", zipped({"a.xml": XML, "b.xml": aggregate(report_id="2")})),
            part("application/gzip", packed(b"<feedback>"), "bad.xml.gz"), part("x/y", packed(tls())),
        )
    ])  # fmt: skip
    assert [type(each) for each in found.reports] == [InboundAggregate, InboundAggregate, InboundTls]
    assert len(found.problems) == 1 and found.problems[0].startswith("bad.xml.gz: its XML is not well-formed")
    assert (found.author, found.message_id) == ("reporter.example", "<one@reporter.example>")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\r\n", b"Subject: x\r\n\r\nhello\r\n",
        mail(b"Content-Type: text/html\r\n\r\n<html>hi</html>\r\n", subject="please"),
        mail(part("text/html", b"<html>hi</html>", "a.html"), subject="please"),
        mail(part("application/json", b'{"a": 1}'), subject="please"),
        mail(part("application/zip", zipped({"a.txt": b"hello", "b.docx": b"x"})), subject="our offer"),
        mail(part("image/svg+xml", b"<svg xmlns='x'/>", "a.svg"), subject="logo"),
        mail(b"Content-Type: message/rfc822\r\n\r\n" + ORIGINAL + b"\r\nx\r\n", subject="Fwd: news"),
    ],
)  # fmt: skip
def test_mail_of_people_is_no_fault(content: bytes) -> None:
    found = report_mail.read([content])
    assert (found.reports, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (mail(b"Content-Type: text/plain\r\n\r\nnothing\r\n"), "announces a report"),
        (mail(part("application/gzip", packed(b"rubbish"), "a!b!1!2.xml.gz")), "neither XML nor JSON"),
        (mail(part("application/zip", b"PK\x03\x04rubbish")), "zip archive is damaged"),
        (mail(part("text/xml", b"<feedback><a></feedback>", "a.xml")), "not well-formed"),
        (mail(part("application/tlsrpt+json", b"{}")), "no TLS report"),
        (mail(part("application/gzip", packed(b"\0" * 2_000_000))), "expands to more than 1048576 octets"),
        (b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + b"--a\r\n\r\n" * 600, "more than 500 parts"),
        (
            b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(40)),
            "nested more than 20 deep",
        ),
    ],
)
def test_what_should_be_a_report_and_is_none_is_named(content: bytes, wrong: str) -> None:
    found = report_mail.read([content], InboundLimits(expanded_max=1_048_576))
    assert found.reports == ()
    assert any(wrong in each for each in found.problems), found.problems


def test_reports_of_one_mail_have_a_limit() -> None:
    many = {f"{number}.xml": aggregate(report_id=f"{number}") for number in range(40)}
    content = mail(part("application/zip", zipped(many)), part("application/zip", zipped(many)))
    found = report_mail.read([content])
    assert len(found.reports) == 50 and "more than 50 reports" in found.problems[0]


@given(st.lists(st.integers(1, 4000), max_size=8))
def test_where_the_mail_is_cut_changes_nothing(cuts: list[int]) -> None:
    content = mail(part("application/gzip", packed(XML)), part("text/plain", b"x"), part("x/y", packed(tls())))
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    pieces = [content[begin:end] for begin, end in itertools.pairwise(places)]
    assert report_mail.read(pieces) == report_mail.read([content])


@given(st.binary(max_size=200), st.integers(0, 1500), st.sampled_from([mail(part("x/y", packed(XML))), feedback()]))
def test_any_octets_are_read(octets: bytes, at: int, content: bytes) -> None:
    found = report_mail.read([content[:at] + octets + content[at + len(octets) :]])
    assert all(each and len(each) <= 500 for each in found.problems)
