"""Target `grammar`: any text to whatever reads one: MAIL, RCPT, mailboxes, xtext, ORCPT, EHLO and its answer, XCLIENT,
XFORWARD, the PROXY header.

What must hold: nothing raises; a value or a Reply that can be sent comes out; no value holds a control character; the
quick way and the full one agree; what was read and is written again by the client is read as the same.
"""

from __future__ import annotations

import re

import msgspec

from postroad.mail.address import path
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.reply import Reply, encode
from postroad.protocol import capability, sending
from postroad.protocol.capability import Capabilities
from postroad.protocol.command import Mail, Rcpt, Xclient, Xforward
from postroad.protocol.extension import EXTENSIONS, terms
from postroad.protocol.grammar import (
    orcpt_decode,
    orcpt_encode,
    parse_domain,
    parse_hello,
    parse_mail,
    parse_mailbox,
    parse_rcpt,
    plain_mail,
    plain_rcpt,
    xtext_decode,
    xtext_encode,
)
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.protocol.proxy import Header, HeaderReader
from postroad.protocol.replies import ReplyReader
from postroad.protocol.xclient import parse_xclient, parse_xforward
from tests.fuzz import choices
from tests.unit.protocol.host import ALL

LIMITS = ProtocolLimits()
_TERMS = terms(msgspec.structs.replace(ALL, requiretls=True, tls=True), LIMITS, Dialect.SMTP)
MAIL = _TERMS.mail | {"BINARYMIME", "SMTPUTF8"}
RCPT = _TERMS.rcpt | {"BINARYMIME", "SMTPUTF8"}
OFFERED = Capabilities(
    keywords={extension.keyword: "" for extension in EXTENSIONS}, pipelining=True, size=True, eight_bit_mime=True,
    smtputf8=True, dsn=True, chunking=True, binary_mime=True, require_tls=True,
)  # fmt: skip
_SECURITY = sending.Security(tls=True, verified=True, authenticated=True)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check(data: bytes, *, hasty: bool = False) -> None:
    """All of it is quick, so that there is nothing to leave out in haste."""
    wire = choices.read(data).wire
    text = wire.decode("utf-8", "replace")
    _mail(wire)
    _rcpt(wire)
    _texts(text)
    _hello(wire)
    _attributes(wire)
    _capabilities(wire)
    _proxy(wire, choices.read(data))


def _refused(answer: object) -> None:
    """A refusal is a Reply that can be sent, and read again as what it says."""
    assert isinstance(answer, Reply) and answer.permanent
    reader = ReplyReader()
    reader.feed(encode(answer))
    read = reader.next()
    assert isinstance(read, Reply) and (read.code, read.status) == (answer.code, answer.status)


def _clean(*texts: str) -> None:
    for text in texts:
        assert not _CONTROL.search(text), text


def _mail(line: bytes) -> None:
    mail = parse_mail(line, MAIL, LIMITS)
    assert plain_mail(line) in (None, mail)
    if not isinstance(mail, Mail):
        _refused(mail)
        return
    _clean(path(mail.reverse_path), mail.auth, mail.envid.replace("\t", " "), *(value for _, value in mail.parameters))
    again = parse_mail(_mail_written(mail), MAIL, LIMITS)
    assert isinstance(again, Mail), (mail, again)
    assert (again.reverse_path, again.body, again.ret, again.envid, again.auth) == (
        mail.reverse_path, mail.body, mail.ret, mail.envid, mail.auth
    )  # fmt: skip
    assert again.smtputf8 >= mail.smtputf8


def _mail_written(mail: Mail) -> bytes:
    """MAIL as our client says it to a remote that offers everything."""
    auth = (("AUTH", mail.auth),) if mail.auth else ()
    envelope = Envelope(
        id=0, reverse_path=mail.reverse_path, recipients=(), size=1, accepted_us=0, body=mail.body,
        smtputf8=mail.smtputf8, ret=mail.ret, envid=mail.envid, parameters=auth,
    )  # fmt: skip
    written = sending.opening(
        envelope, 1, OFFERED, _SECURITY, utf8_wanted=False, inspection=None, bdat_size_min=0
    )
    assert isinstance(written, sending.MailCommand), (mail, written)
    assert written.mail.endswith(b"\r\n")
    return written.mail[:-2]


def _rcpt(line: bytes) -> None:
    for smtputf8 in (True, False):
        rcpt = parse_rcpt(line, RCPT, LIMITS, smtputf8=smtputf8)
        assert plain_rcpt(line) in (None, rcpt)
        if not isinstance(rcpt, Rcpt):
            _refused(rcpt)
            continue
        _clean(str(rcpt.forward_path), rcpt.orcpt.replace("\t", " "), *(value for _, value in rcpt.parameters))
        assert smtputf8 or rcpt.forward_path.is_ascii
        recipient = Recipient(rcpt.forward_path, notify=rcpt.notify, orcpt=rcpt.orcpt)
        written = sending.rcpt(recipient, OFFERED, smtputf8=smtputf8)
        assert isinstance(written, bytes) and written.endswith(b"\r\n"), (rcpt, written)
        again = parse_rcpt(written[:-2], RCPT, LIMITS, smtputf8=smtputf8)
        assert isinstance(again, Rcpt), (rcpt, written, again)
        assert (again.forward_path, again.notify) == (rcpt.forward_path, rcpt.notify)
        assert not rcpt.orcpt or again.orcpt == rcpt.orcpt


def _texts(text: str) -> None:
    address = parse_mailbox(text)
    if address is not None:
        _clean(str(address))
        assert parse_mailbox(str(address)) == address
    domain = parse_domain(text)
    if domain is not None:
        assert domain.isascii() and parse_domain(domain) == domain
    assert xtext_decode(xtext_encode(text)) == text
    decoded = xtext_decode(text)
    assert decoded is None or xtext_decode(xtext_encode(decoded)) == decoded
    orcpt = orcpt_decode(text)
    if orcpt is not None:
        _clean(orcpt.replace("\t", " "))
        for smtputf8 in (True, False):
            written = orcpt_encode(orcpt, smtputf8=smtputf8)
            assert smtputf8 or written.isascii()
            encoded = written.partition(";")[2]
            assert " " not in written and "=" not in encoded
            # What becomes too long is not sent on with the recipient; all else is the same again.
            assert orcpt_decode(written) == (orcpt if len(written) <= 500 else None)


def _hello(argument: bytes) -> None:
    name = parse_hello(argument)
    assert name is None or re.fullmatch(r"[!-~\u0080-\U0010ffff]{1,1020}", name)


def _attributes(argument: bytes) -> None:
    for parsed in (parse_xclient(argument), parse_xforward(argument)):
        if isinstance(parsed, Xclient | Xforward):
            values = [value for value in msgspec.structs.astuple(parsed) if value is not None]
            _clean(*values)
            assert values and all(len(value.encode()) <= 255 for value in values)
        else:
            _refused(parsed)


def _capabilities(wire: bytes) -> None:
    """Lines of an answer to EHLO, as the reader of replies hands them on."""
    reader = ReplyReader()
    reader.feed(b"250-mx\r\n" + b"".join(b"250-%s\r\n" % line for line in wire.split(b"\r\n")) + b"250 OK\r\n")
    answer = reader.next()
    if isinstance(answer, Reply):
        offered = capability.parse(answer.lines)
        assert min(offered.size_max, offered.mail_max, offered.rcpt_max, offered.by_min_s) >= 0
        assert offered.chunking or not offered.binary_mime


def _proxy(wire: bytes, chosen: choices.Choices) -> None:
    whole, cut = HeaderReader(size_max=536), HeaderReader(size_max=536)
    taken = whole.take(wire)
    assert 0 <= taken <= len(wire)
    both = sum(cut.take(part) for part in choices.parted(wire, list(chosen.cuts(len(wire)))))
    assert type(cut.result) is type(whole.result)
    if isinstance(whole.result, Header):
        assert (cut.result, both) == (whole.result, taken)
        header = whole.result
        _clean(header.address, header.destination, header.alpn, header.authority, header.unique_id)
        if header.secured is not None:
            _clean(*(text for text in msgspec.structs.astuple(header.secured) if isinstance(text, str)))
