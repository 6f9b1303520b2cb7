"""A mail of which a report is expected: its parts, the files in them, and the reports in these.

Senders name types and files as they like, so each part is judged by its octets: an archive, XML or JSON may be a
report; a part `message/feedback-report` is one, and then nothing else of the mail is looked at, because the rest is the
message that it is about. What always holds: nothing of a mail without a report is a fault, as a person may write to the
address, too; depth, parts, archives and reports have limits (`limits`). How it fails: `InboundMail.problems` names what
looks like a report and could not be read; the other reports of the mail are there all the same. Memory: the mail once
more, and what its archives expand to.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from postroad.mail.message import first
from postroad.protocol.mime import BodyOctets, Entity, Head, TooComplex, walk
from postroad.trust.author import authors
from postroad.trust.inbound import aggregate, archives, feedback, tls
from postroad.trust.inbound.limits import (
    DEFAULT_LIMITS,
    MIME,
    PROBLEMS_MAX,
    REPORTS_MAX,
    InboundLimits,
    UnreadableReport,
)
from postroad.trust.inbound.standing import Standing, standing
from postroad.trust.inbound.values import InboundReport, tidy

_FEEDBACK: Final = "message/feedback-report"
_HEADERS: Final = ("text/rfc822-headers", "message/rfc822-headers")
_MESSAGE: Final = "message/rfc822"
_FILE_NAME: Final = re.compile(
    rb'name\*?\d*\*?\s{0,50}=\s{0,50}(?:"([^"\r\n]{1,255})"|([^\s;"]{1,255}))', re.IGNORECASE
)
_JSON_WORDS: Final = (b'"policies"', b'"organization-name"', b'"report-id"')
_BEGINNING: Final = 4_096  # octets in which words of a report are looked for
_SUBJECT: Final = re.compile(r"report\s{1,9}domain:", re.IGNORECASE)


class InboundMail(msgspec.Struct, frozen=True):
    """What a mail holds. `problems`: what could not be read. `author`: the domain of From; `message_id`: of the mail.
    `standing`: what this node found of the mail itself when it came."""

    reports: tuple[InboundReport, ...] = ()
    problems: tuple[str, ...] = ()
    author: str = ""
    subject: str = ""
    message_id: str = ""
    standing: Standing = Standing()


class _Part(msgspec.Struct):
    """A part without parts."""

    entity: Entity
    head: bytes
    octets: list[bytes]

    @property
    def name(self) -> str:
        found = _FILE_NAME.search(self.head)
        return tidy((found[1] or found[2]).decode("utf-8", "replace")) if found else ""

    def decoded(self) -> bytes:
        octets = b"".join(self.octets)
        encoding = self.entity.encoding
        if encoding == "base64":
            return _of_base64(octets)
        return binascii.a2b_qp(octets) if encoding == "quoted-printable" else octets


def read(
    pieces: Iterable[bytes], limits: InboundLimits = DEFAULT_LIMITS, breathe: Callable[[], None] = lambda: None,
    authserv_ids: tuple[str, ...] = (),
) -> InboundMail:
    """The reports in a mail that comes in pieces. `breathe` is called now and then, so that a thread can rest.
    `authserv_ids`: by which this node signs its Authentication-Results."""
    parts: list[_Part] = []
    heads: list[Head] = []
    try:
        for token in walk(pieces, MIME):
            if isinstance(token, Head):
                heads.append(token)
                if token.entity.leaf:
                    parts.append(_Part(token.entity, token.octets, []))
            elif isinstance(token, BodyOctets) and token.octets:
                parts[-1].octets.append(token.octets)
    except TooComplex as error:
        return _mail(heads, (), (f"its structure is not read: {error}",), authserv_ids)
    told = next((part for part in parts if part.entity.type == _FEEDBACK), None)
    originals = [head.octets for head in heads if head.entity.message and head.parent >= 0]
    originals += [part.decoded() for part in parts if part.entity.type in (*_HEADERS, _MESSAGE)]
    mail = _mail(heads, (), (), authserv_ids)
    if told is not None:
        found = feedback.read(told.decoded(), originals[0] if originals else b"", mail.author)
        return msgspec.structs.replace(mail, reports=(found,))
    if originals and feedback.is_microsofts(originals[0]):
        return msgspec.structs.replace(mail, reports=(feedback.read(None, originals[0], mail.author),))
    reports, problems = _of_files(parts, limits, breathe, expected=_SUBJECT.search(mail.subject) is not None)
    return msgspec.structs.replace(mail, reports=reports, problems=problems)


def _mail(
    heads: list[Head], reports: tuple[InboundReport, ...], problems: tuple[str, ...], authserv_ids: tuple[str, ...]
) -> InboundMail:
    section = heads[0].octets if heads else b""
    named = authors(section).domains
    subject = tidy(first(section, b"subject") or "")
    author = named[0] if named else ""
    submitter = tidy(first(section, b"tls-report-submitter") or "").lower()
    message_id = tidy(first(section, b"message-id") or "")
    return InboundMail(
        reports, problems, author, subject, message_id, standing(section, author, submitter, authserv_ids)
    )


def _of_files(
    parts: list[_Part], limits: InboundLimits, breathe: Callable[[], None], *, expected: bool
) -> tuple[tuple[InboundReport, ...], tuple[str, ...]]:
    """The reports in the parts, and what could not be read. `expected`: the mail says that it has one."""
    reports: list[InboundReport] = []
    problems: dict[str, None] = {}
    room = archives.Room(limits.expanded_max)

    def trouble(part: _Part, text: str) -> None:
        if len(problems) < PROBLEMS_MAX:
            problems[tidy(f"{part.name}: {text}" if part.name else text)] = None

    for part in parts:
        octets = part.decoded()
        part.octets.clear()
        breathe()
        before = len(reports)
        try:
            for file in archives.files(octets, room):
                breathe()
                if len(reports) >= REPORTS_MAX:
                    raise UnreadableReport(f"the mail has more than {REPORTS_MAX} reports")
                found = _report(file, part, limits, breathe, packed=file is not octets)
                if found is not None:
                    reports.append(found)
            if len(reports) == before and archives.is_archive(octets) and (expected or "!" in part.name):
                trouble(part, "its archive holds a file that is neither XML nor JSON")
        except UnreadableReport as error:
            trouble(part, str(error))
    if expected and not reports and not problems:
        problems["its subject announces a report, but there is none in it"] = None
    return tuple(reports), tuple(problems)


def _report(
    file: bytes, part: _Part, limits: InboundLimits, breathe: Callable[[], None], *, packed: bool
) -> InboundReport | None:
    """The report in a file; None if it does not look like one."""
    beginning = file[:_BEGINNING]
    if aggregate.looks_like_one(file):
        named = part.name.lower().endswith((".xml", ".xml.gz"))
        plain_text = part.entity.type in ("text/html", "text/plain") and not named
        wide = beginning.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"feedback" not in beginning and not wide and (not packed or plain_text) and not named:
            return None
        return aggregate.read(file, limits, breathe)
    if tls.looks_like_one(file):
        if "tlsrpt" not in part.entity.type and not any(word in file for word in _JSON_WORDS):
            return None
        return tls.read(file, limits)
    return None


def _of_base64(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:
        pass  # it was cut, or its padding is wrong
    for padding in (b"=", b"=="):
        try:
            return binascii.a2b_base64(octets + padding)
        except binascii.Error:
            continue
    return b""
