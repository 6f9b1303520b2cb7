"""Target `reports`: any octets as a report of others, as an archive with one, or as a mail that brings it.

What must hold: nothing raises but `UnreadableReport`; no more is expanded than is allowed; each text is one line of
limited length; what is kept is read again as it was; where the mail is cut changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from postroad.trust.inbound import aggregate, archives, keeping, report_mail, tls
from postroad.trust.inbound.limits import InboundLimits, UnreadableReport
from postroad.trust.inbound.values import TEXT_MAX, InboundAggregate, InboundFeedback, InboundReport, InboundTls
from tests.fuzz import choices
from tests.unit.trust.inbound import samples

_ROOM = 1_048_576
_LIMITS = InboundLimits(expanded_max=_ROOM, records_max=1000)
_AGGREGATE, _TLS, _ARCHIVE, _FEEDBACK, _MAIL = range(5)


def check(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    try:
        match chosen.mode % 5:
            case 0:
                _is_sound(aggregate.read(chosen.wire, _LIMITS))
            case 1:
                _is_sound(tls.read(chosen.wire, _LIMITS))
            case 2:
                assert sum(map(len, archives.files(chosen.wire, archives.Room(_ROOM)))) <= _ROOM + len(chosen.wire)
            case 3:
                _check_mail(samples.feedback().replace(b"Feedback-Type: abuse\r\n", chosen.wire), chosen, hasty)
            case _:
                _check_mail(chosen.wire, chosen, hasty)
    except UnreadableReport as error:
        assert str(error).isprintable() and len(str(error)) <= TEXT_MAX


def _check_mail(content: bytes, chosen: choices.Choices, hasty: bool) -> None:
    found = report_mail.read([content], _LIMITS)
    for report in found.reports:
        _is_sound(report)
    assert all(_is_line(text) for text in (*found.problems, found.subject, found.message_id))
    cuts = [0, *sorted(set(chosen.cuts(len(content)))), len(content)]
    if hasty:
        cuts = [0, *cuts[1:2], len(content)]
    pieces = [content[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]  # noqa: RUF007
    assert report_mail.read(pieces, _LIMITS) == found
    for kept in keeping.kept(found, 1):
        again = {"dmarc": keeping.aggregate, "tls": keeping.tls}.get(kept.kind, keeping.feedback)(kept)
        assert msgspec.msgpack.encode(again) == kept.value and kept.name


def _is_sound(report: InboundReport) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=type(report)) == report
    assert keeping.in_words(report)
    for text in _texts(msgspec.to_builtins(report)):
        assert _is_line(text), text
    match report:
        case InboundAggregate():
            assert report.policy.domain and all(row.count >= 0 for row in report.rows)
        case InboundTls():
            assert report.policies and all(each.successful >= 0 and each.failed >= 0 for each in report.policies)
        case InboundFeedback():
            assert report.incidents >= 1


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _is_line(text: str) -> bool:
    return len(text) <= TEXT_MAX and "\r" not in text and "\n" not in text


_XML = (
    samples.aggregate(),
    samples.aggregate(attributes=' xmlns="urn:ietf:params:xml:ns:dmarc-2.0"', more="<extension/>"),
    samples.aggregate([samples.record(), samples.record("2001:db8::1", 3)], prolog="\r\n"),
    samples.aggregate(organization="A & B"), b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + samples.aggregate(prolog=""),
    samples.aggregate([samples.record(more="<x:a xmlns:x='u'><x:b/></x:a>")]), b"<feedback/>", b"<a><b>&#0;</b></a>",
)  # fmt: skip
_JSON = (
    samples.tls(), b"{}", b'{"policies": []}', samples.tls(policies=[{"policy": {"policy-domain": "a.example"}}]),
    samples.tls(**{"date-range": None, "report-id": 5}), b"[" * 50,
)  # fmt: skip
_ARCHIVES = (
    samples.packed(b"<feedback/>"), samples.zipped({"a.xml": b"<feedback/>"}), samples.packed(b"\0" * 2_000_000),
    samples.zipped({"a/": b"", "b": samples.packed(b"x")}), samples.packed(samples.packed(b"{}")),
    b"PK\x05\x06" + b"\0" * 18,
    samples.packed(b"a") + samples.packed(b"b") + b"\0\0",
)  # fmt: skip
_FIELDS = (
    b"Feedback-Type: abuse\r\n", b"Feedback-Type: auth-failure\r\nAuth-Failure: dkim\r\nIncidents: 3\r\n",
    b"Feedback-Type: fraud\nSource-IP: x\nArrival-Date: y\nReporting-MTA: dns;\n", b"\r\n\r\n", b"x", b"\xff: \xff\r\n",
)  # fmt: skip
_MAILS = (
    samples.mail(samples.part("application/gzip", samples.packed(_XML[0]), "a!b!1!2.xml.gz")),
    samples.mail(samples.part("application/tlsrpt+gzip", samples.packed(_JSON[0]))), samples.feedback(),
    samples.mail(samples.part("message/feedback-report", _FIELDS[0]), samples.part("message/rfc822", samples.ORIGINAL)),
    samples.mail(b"Content-Type: message/rfc822\r\n\r\nX-HmXmrOriginalRecipient: a@b\r\n" + samples.ORIGINAL), b"\r\n",
    samples.mail(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<feedback=3E"), b"Subject: hi\r\n\r\nhi\r\n",
)  # fmt: skip


_SEEDS = {_AGGREGATE: _XML, _TLS: _JSON, _ARCHIVE: _ARCHIVES, _FEEDBACK: _FIELDS, _MAIL: _MAILS}


def seeds() -> dict[str, bytes]:
    return {
        f"{mode}-{number:02}": choices.written(mode, 9, 5 + number, octets)
        for mode, several in _SEEDS.items()
        for number, octets in enumerate(several)
    }
