"""ENVID and ORCPT, octet by octet: what comes in is what goes out, to the next host and into a report.

RFC 3461 §4: xtext = *( xchar / hexchar ), xchar any of "!" to "~" but "+" and "=", hexchar "+" and two capital
hexadecimal digits. §4.4: an envelope id is printable US-ASCII and white space once it is decoded, 100 characters at
most as it is written; §4.2: so is an original address, 500 with its type. What may be is written down here once more,
from the text of the RFC, and each octet is tried alone, within others and twice: as it is, as hexchar in
capitals, in small letters and cut short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message

import pytest

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope
from postroad.mail.report import DsnAction, RecipientReport
from postroad.protocol import sending
from postroad.protocol.capability import Capabilities
from postroad.protocol.offer import Dialect
from postroad.report.dsn import make
from postroad.report.options import ReportOptions
from tests.logic.talk import Talk, house
from tests.unit.receive.fakes import NOW_US

WRAPPED = (b"@", b"a@b", b"@@")
XCHARS = frozenset(range(0x21, 0x7F)) - {0x2B, 0x3D}
PRINTABLE = frozenset(range(0x20, 0x7F)) | {0x09}


def written(octet: int) -> Iterator[tuple[bytes, bool]]:
    """Ways to write an octet, and whether RFC 3461 allows them."""
    yield bytes((octet,)), octet in XCHARS
    yield b"+%02X" % octet, octet in PRINTABLE
    small = b"+%02x" % octet
    if small != b"+%02X" % octet:
        yield small, False
    yield b"+%X" % (octet >> 4), False  # half of it
    yield b"+%02X" % octet + b"+", False
    yield b'"+%02X"' % octet, octet in PRINTABLE  # quotes are xchars like any other
    yield b"%%%02X" % octet, True  # neither is this an encoding: three xchars


def plain(value: bytes) -> str:
    """What xtext stands for, by the RFC's text and nothing of ours."""
    return re.sub(rb"\+(..)", lambda found: bytes.fromhex(found[1].decode()), value).decode()


CASES = [
    (wrap.replace(b"@", way), way, allowed)
    for octet in range(256)
    for way, allowed in written(octet)
    for wrap in WRAPPED
]


def expects(value: bytes, way: bytes, allowed: bool) -> bool | None:
    """None: a blank or a line end would make another command of it. A half hexchar may become whole by what follows."""
    if way in (b" ", b"\r", b"\n", b"\t"):
        return None
    if re.fullmatch(rb"\+[0-9A-F]", way):
        whole = re.fullmatch(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", value) is not None
        return whole and set(plain(value).encode()) <= PRINTABLE
    return allowed


def taken(parameter: str, value: bytes) -> tuple[list[int], Envelope | None]:
    """What a session says to MAIL, RCPT and the message, and the envelope that came of it."""
    talk = Talk(house(Dialect.SMTP))
    envid = b" ENVID=" + value if parameter == "ENVID" else b""
    orcpt = b" ORCPT=rfc822;" + value if parameter == "ORCPT" else b""
    answers = talk.send(b"MAIL FROM:<ada@elsewhere.test>" + envid + b"\r\n")
    if answers[-1][0] == 250:
        answers += talk.send(b"RCPT TO:<ann@local.test>" + orcpt + b"\r\n")
    codes = [code for code, _ in answers]
    if codes != [250, 250]:
        return codes, None
    assert talk.ask("DATA") == [354]
    assert [code for code, _ in talk.send(b"Good: yes\r\n\r\n\r\n.\r\n")] == [250]
    return codes, talk.house.spool.stored[0].envelope


OFFERED = Capabilities(dsn=True)


@pytest.mark.slow
@pytest.mark.parametrize("parameter", ["ENVID", "ORCPT"])
def test_every_octet_in_and_out(parameter: str) -> None:
    tried = 0
    for value, way, allowed in CASES:
        expected = expects(value, way, allowed)
        if expected is None:
            continue
        codes, envelope = taken(parameter, value)
        assert (envelope is not None) is expected, (value, codes)
        if envelope is None:
            # Control characters and octets that are no UTF-8 are 500 or 501; else the value is wrong.
            assert codes[-1] in (500, 501), (value, codes)
            continue
        tried += 1
        meant = plain(value)
        kept = envelope.envid if parameter == "ENVID" else envelope.recipients[0].orcpt.removeprefix("rfc822;")
        assert kept == meant, value
        assert_goes_on(parameter, envelope, meant)
        assert_is_reported(parameter, envelope, meant)
    assert tried > 1_500


def assert_goes_on(parameter: str, envelope: Envelope, meant: str) -> None:
    """The next host reads the same."""
    if parameter == "ENVID":
        line = said_at_mail(envelope)
    else:
        said = sending.rcpt(envelope.recipients[0], OFFERED, smtputf8=False)
        assert isinstance(said, bytes)
        line = said
    (value,) = re.findall(rb" (?:ENVID=|ORCPT=rfc822;)([^ \r\n]*)", line)
    assert re.fullmatch(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", value), line
    assert plain(value) == meant and line.count(b"\r\n") == 1 and line.endswith(b"\r\n")


def said_at_mail(envelope: Envelope) -> bytes:
    opening = sending.opening(
        envelope, 100, OFFERED, sending.Security(), utf8_wanted=False, inspection=None, bdat_size_min=1_000_000
    )
    assert isinstance(opening, sending.MailCommand)
    return opening.mail


def assert_is_reported(parameter: str, envelope: Envelope, meant: str) -> None:
    """RFC 3464 §2.2.1, §2.3.1: the field has the decoded value; white space at its ends is no part of a field, and a
    report has no other white space than spaces."""
    fields = report_of(envelope)
    if parameter == "ENVID":
        found = fields["Original-Envelope-Id"]
    else:
        kind, _, found = (fields["Original-Recipient"] or "").partition(";")
        assert kind == "rfc822"
    assert found is not None
    assert re.sub(r"\r?\n(?=[ \t])", "", found).strip() == meant.replace("\t", " ").strip()


def report_of(envelope: Envelope) -> dict[str, str | None]:
    attempt = Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", "no such user")
    reports = [RecipientReport(each, DsnAction.FAILED, attempt) for each in envelope.recipients]
    made = make(
        reports, envelope, None, ReportOptions("mx.local.test"), now_us=NOW_US, new_id=lambda shard: 1,
        read=lambda content, limit: b"",
    )  # fmt: skip
    octets = made.accepted[0].content
    assert isinstance(octets, bytes)
    whole = message_from_bytes(octets)
    parts = whole.get_payload()
    assert isinstance(parts, list)
    status = parts[1].get_payload()
    assert isinstance(status, list)
    fields: dict[str, str | None] = {}
    for each in status:
        assert isinstance(each, Message)
        fields |= {name: str(text) for name, text in each.items()}
    return fields


@pytest.mark.parametrize(
    ("parameter", "value", "fits"),
    [
        ("ENVID", b"e" * 100, True),
        ("ENVID", b"e" * 101, False),
        ("ENVID", b"x" + b"+20" * 33, True),
        ("ENVID", b"+20" * 33 + b"x", True),
        ("ENVID", b"+20" * 34, False),
        ("ENVID", b"", False),
        ("ORCPT", b"o" * (500 - len("rfc822;")), True),
        ("ORCPT", b"o" * (501 - len("rfc822;")), False),
        ("ORCPT", b"word+20" * 70 + b"end", True),
        ("ORCPT", b"", False),
    ],
)
def test_lengths(parameter: str, value: bytes, fits: bool) -> None:
    codes, envelope = taken(parameter, value)
    assert (envelope is not None) is fits, codes
    if envelope is not None:
        assert_goes_on(parameter, envelope, plain(value))
        assert_is_reported(parameter, envelope, plain(value))


@pytest.mark.parametrize("octet", range(256))
@pytest.mark.parametrize("where", [b"%s", b"a%sb"])
def test_every_octet_in_the_type_of_an_original_address(octet: int, where: bytes) -> None:
    """RFC 3461 §4.2: addr-type = atom, and RFC 822's atom excludes specials, space and control characters."""
    kind = where.replace(b"%s", bytes((octet,)))
    talk = Talk(house(Dialect.SMTP))
    talk.ask("MAIL FROM:<>")
    answers = talk.send(b"RCPT TO:<ann@local.test> ORCPT=" + kind + b";x@y.test\r\n")
    if octet in b"\r\n":
        return
    atom = re.fullmatch(rb"[^\x00-\x20()<>@,;:\\\".\[\]\x7f-\xff]+", kind) is not None
    # "=" is an atom's character for RFC 822, but none of an esmtp-value (RFC 5321 §4.1.2). The first ";" ends the type.
    allowed = kind == b"a;b" or (atom and octet != 0x3D)
    assert (answers[0][0] == 250) is allowed, answers


# What may stand in a utf-8 address and what it means (RFC 6533 §3); None: it may not.
UNITEXT: dict[str, str | None] = {
    "j\u00f6rg@example.test": "j\u00f6rg@example.test",
    "j\\x{F6}rg@example.test": "j\u00f6rg@example.test",
    "j+C3+B6rg@example.test": "j\u00f6rg@example.test",  # of a client that knows RFC 3461 only
    "\\x{1F4EC}@example.test": "\U0001f4ec@example.test",
    "a\\x{20}b": "a b",
    "a\\x{2B}b": "a+b",
    "a\\x{3D}b": "a=b",
    "a\\x{5C}b": "a\\b",
    "a\\x{41}b": None,  # printable ASCII needs no embedding
    "a\\x{0A}b": None,
    "a\\x{D800}b": None,
    "a\\x{110000}b": None,
    "a\\x{00F6}b": None,
    "a\\x{f6}b": None,
    "a\\x{F6": None,
    "a\\xb": None,
    "a\\b": None,
    "a+0Ab": None,
    "a=b": None,
    'a"b': 'a"b',
}


@pytest.mark.parametrize(("value", "meant"), list(UNITEXT.items()))
@pytest.mark.parametrize("smtputf8", [False, True])
def test_a_utf_8_address_in_and_out(value: str, meant: str | None, smtputf8: bool) -> None:
    talk = Talk(house(Dialect.SMTP))
    assert talk.ask("MAIL FROM:<ada@elsewhere.test> SMTPUTF8") == [250]
    line = f"RCPT TO:<ann@local.test> ORCPT=utf-8;{value}\r\n".encode()
    (answer,) = talk.send(line)
    assert (answer[0] == 250) is (meant is not None), answer
    if meant is None:
        return
    talk.ask("DATA")
    talk.send(b"Good: yes\r\n\r\n\r\n.\r\n")
    recipient = talk.house.spool.stored[0].envelope.recipients[0]
    assert recipient.orcpt == f"utf-8;{meant}"
    said = sending.rcpt(recipient, OFFERED, smtputf8=smtputf8)
    assert isinstance(said, bytes) and (smtputf8 or said.isascii())
    (again,) = re.findall(rb" ORCPT=([^ \r\n]*)", said)
    other = Talk(house(Dialect.SMTP))
    assert other.ask("MAIL FROM:<ada@elsewhere.test> SMTPUTF8") == [250]
    assert other.send(b"RCPT TO:<bob@local.test> ORCPT=" + again + b"\r\n")[0][0] == 250
    other.ask("DATA")
    other.send(b"Good: yes\r\n\r\n\r\n.\r\n")
    assert other.house.spool.stored[0].envelope.recipients[0].orcpt == recipient.orcpt
