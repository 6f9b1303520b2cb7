"""MAIL and RCPT as they are said to a remote, and what cannot be said to it."""

from __future__ import annotations

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.envelope import Body, Envelope, Notify, Recipient, Ret
from postroad.mail.reply import Reply
from postroad.protocol.capability import Capabilities, parse
from postroad.protocol.sending import (
    ContentFacts,
    MailCommand,
    Result,
    Security,
    Subject,
    must_inspect,
    opening,
    rcpt,
    refusal,
    target,
)
from postroad.protocol.seven_bit import ConversionTarget, EightBit

NOTHING = Capabilities()
ALL = parse(
    ("mx", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "AUTH PLAIN", "REQUIRETLS",
     "DELIVERBY", "MT-PRIORITY", "RRVS", "PIPELINING")
)
NOT_SECURE = Security()
ADA = Address("ada", "example.org")
UTF8 = Address("jürgen", "xn--mnchen-3ya.example")
SECURE = Security(tls=True, verified=True, authenticated=True)


def envelope(**changes: object) -> Envelope:
    return msgspec.structs.replace(Envelope(1, ADA, (Recipient(ADA),), 100, 0), **changes)


def said(
    given: Envelope, offered: Capabilities, *, size: int = 100, security: Security = NOT_SECURE, utf8: bool = False,
    inspection: ContentFacts | None = None, waited_s: int = 0, bdat_size_min: int = 1_000_000,
    eight_bit: EightBit = EightBit.CONVERT,
) -> MailCommand | Result:
    return opening(
        given, size, offered, security, utf8_wanted=utf8, inspection=inspection, bdat_size_min=bdat_size_min,
        waited_s=waited_s, eight_bit=eight_bit,
    )


@pytest.mark.parametrize(
    ("changes", "offered", "command"),
    [
        ({}, NOTHING, b"MAIL FROM:<ada@example.org>\r\n"),
        ({"reverse_path": None}, NOTHING, b"MAIL FROM:<>\r\n"),
        ({"reverse_path": Address("a b", "example.org")}, NOTHING, b'MAIL FROM:<"a b"@example.org>\r\n'),
        ({}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100\r\n"),
        ({"body": Body.EIGHT_BIT_MIME}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 BODY=8BITMIME\r\n"),
        ({"body": Body.BINARY_MIME}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 BODY=BINARYMIME\r\n"),
        ({"smtputf8": True}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 SMTPUTF8\r\n"),
        (
            {"reverse_path": UTF8}, ALL,
            "MAIL FROM:<jürgen@xn--mnchen-3ya.example> SIZE=100 SMTPUTF8\r\n".encode(),
        ),
        (
            {"ret": Ret.HDRS, "envid": "QQ=3 14+"}, ALL,
            b"MAIL FROM:<ada@example.org> SIZE=100 RET=HDRS ENVID=QQ+3D3+2014+2B\r\n",
        ),
        ({"ret": Ret.HDRS, "envid": "x", "body": Body.SEVEN_BIT}, NOTHING, b"MAIL FROM:<ada@example.org>\r\n"),
        ({"parameters": (("MT-PRIORITY", "-3"),)}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 MT-PRIORITY=-3\r\n"),
        ({"parameters": (("MT-PRIORITY", "-3"), ("HOLDFOR", "5"))}, NOTHING, b"MAIL FROM:<ada@example.org>\r\n"),
        ({"parameters": (("AUTH", "e+mc2@example.com"),)}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100\r\n"),
        ({"parameters": (("BY", "120;N"),)}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 BY=110;N\r\n"),
        ({"parameters": (("BY", "5;NT"),)}, ALL, b"MAIL FROM:<ada@example.org> SIZE=100 BY=-5;NT\r\n"),
        ({"parameters": (("BY", "120;N"),)}, NOTHING, b"MAIL FROM:<ada@example.org>\r\n"),
    ],
)
def test_mail(changes: dict[str, object], offered: Capabilities, command: bytes) -> None:
    found = said(envelope(**changes), offered, waited_s=10)
    assert isinstance(found, MailCommand)
    assert found.mail == command


def test_auth_is_told_only_where_we_have_authenticated() -> None:
    found = said(envelope(parameters=(("AUTH", "e+mc2@example.com"),)), ALL, security=SECURE)
    assert isinstance(found, MailCommand)
    assert found.mail == b"MAIL FROM:<ada@example.org> SIZE=100 AUTH=e+2Bmc2@example.com\r\n"


@pytest.mark.parametrize(
    ("changes", "offered", "security", "status"),
    [
        ({"body": Body.BINARY_MIME}, NOTHING, Security(), "5.6.1"),
        ({"body": Body.BINARY_MIME}, parse(("mx", "CHUNKING", "8BITMIME")), Security(), "5.6.1"),
        ({"reverse_path": UTF8}, NOTHING, Security(), "5.6.7"),
        ({"parameters": (("REQUIRETLS", ""),)}, ALL, Security(), "5.7.10"),
        ({"parameters": (("REQUIRETLS", ""),)}, ALL, Security(tls=True), "5.7.10"),
        ({"parameters": (("REQUIRETLS", ""),)}, NOTHING, SECURE, "5.7.30"),
        ({"parameters": (("BY", "10;R"),)}, ALL, Security(), "5.4.7"),
        ({"parameters": (("BY", "100;R"),)}, NOTHING, Security(), "5.3.3"),
        ({"reverse_path": Address("a\r\nRCPT TO:<x@y>", "example.org")}, ALL, Security(), "5.1.7"),
        ({"reverse_path": Address("a\0", "example.org")}, ALL, Security(), "5.1.7"),
        ({"reverse_path": Address("a\ud800", "example.org")}, ALL, Security(), "5.1.7"),
        ({"parameters": (("MT-PRIORITY", "1\r\nRSET"),)}, ALL, Security(), "5.1.7"),
    ],
)
def test_what_cannot_be_sent_fails_before_mail(
    changes: dict[str, object], offered: Capabilities, security: Security, status: str
) -> None:
    found = said(envelope(**changes), offered, security=security, waited_s=10)
    assert isinstance(found, Result)
    assert (found.outcome, found.reach, found.status) == (Outcome.FAILED, Reach.MESSAGE, status)
    assert found.text


def test_requiretls() -> None:
    """RFC 8689 §4.2.1, and §5 for the null reverse-path."""
    required = (("REQUIRETLS", ""),)
    found = said(envelope(parameters=required), ALL, security=SECURE)
    assert isinstance(found, MailCommand) and b" REQUIRETLS\r\n" in found.mail
    found = said(envelope(parameters=required, reverse_path=None), NOTHING)
    assert isinstance(found, MailCommand) and found.mail == b"MAIL FROM:<>\r\n"


def test_size() -> None:
    """RFC 1870 §6.3"""
    assert isinstance(said(envelope(), ALL, size=1000), MailCommand)
    found = said(envelope(), ALL, size=1001)
    assert isinstance(found, Result)
    assert (found.status, found.outcome, found.reach) == ("5.3.4", Outcome.FAILED, Reach.MESSAGE)
    assert isinstance(said(envelope(), parse(("mx", "SIZE")), size=10**9), MailCommand)


def test_eight_bit_towards_a_remote_without_it() -> None:
    """RFC 6152 §3: it is converted where the content needs it; where it is not, it fails."""
    given = envelope(body=Body.EIGHT_BIT_MIME)
    assert must_inspect(given, NOTHING)
    assert not must_inspect(given, ALL)
    assert must_inspect(envelope(), NOTHING), "not every client says BODY=8BITMIME"
    assert target(given, NOTHING) is ConversionTarget.SEVEN_BIT and target(given, ALL) is None
    found = said(given, NOTHING, inspection=ContentFacts(ascii=False, utf8_header=False, problem="too many parts"))
    assert isinstance(found, Result) and found.status == "5.6.3" and "too many parts" in found.text
    for inspection in (
        ContentFacts(ascii=True, utf8_header=False),
        ContentFacts(ascii=False, utf8_header=True, converted=ConversionTarget.SEVEN_BIT),
    ):
        found = said(given, NOTHING, inspection=inspection)
        assert isinstance(found, MailCommand) and found.mail == b"MAIL FROM:<ada@example.org>\r\n"
    found = said(given, NOTHING, inspection=ContentFacts(ascii=False, utf8_header=False), eight_bit=EightBit.SEND)
    assert isinstance(found, MailCommand)


def test_binary_towards_a_remote_without_it() -> None:
    """RFC 3030 §3"""
    given, offered = envelope(body=Body.BINARY_MIME), parse(("mx", "8BITMIME", "CHUNKING"))
    assert must_inspect(given, offered) and target(given, offered) is ConversionTarget.EIGHT_BIT
    assert target(given, parse(("mx", "CHUNKING"))) is ConversionTarget.SEVEN_BIT
    inspection = ContentFacts(ascii=False, utf8_header=False, converted=ConversionTarget.EIGHT_BIT)
    found = said(given, offered, inspection=inspection, bdat_size_min=0)
    assert isinstance(found, MailCommand) and not found.bdat
    assert found.mail == b"MAIL FROM:<ada@example.org> BODY=8BITMIME\r\n"


def test_utf8_header_towards_a_remote_without_smtputf8() -> None:
    """RFC 6531 §3.2, §3.5: never to another MTA; into a mailbox of ours as it was written, or converted."""
    given, offered = envelope(smtputf8=True), parse(("mx", "8BITMIME"))
    assert must_inspect(given, offered)
    inspection = ContentFacts(ascii=False, utf8_header=True)
    found = said(given, offered, inspection=inspection)
    assert isinstance(found, Result) and found.status == "5.6.9"
    found = said(given, offered, inspection=inspection, security=Security(final=True))
    assert isinstance(found, MailCommand) and not found.smtputf8
    assert found.mail == b"MAIL FROM:<ada@example.org> BODY=8BITMIME\r\n"
    found = said(given, NOTHING, inspection=inspection, security=Security(final=True))
    assert isinstance(found, Result) and found.status == "5.6.9"
    converted = ContentFacts(ascii=False, utf8_header=True, converted=ConversionTarget.SEVEN_BIT)
    assert isinstance(said(given, NOTHING, inspection=converted, security=Security(final=True)), MailCommand)
    assert isinstance(said(given, NOTHING, inspection=converted), Result)
    found = said(given, offered, inspection=ContentFacts(ascii=False, utf8_header=False))
    assert isinstance(found, MailCommand) and not found.smtputf8
    assert found.mail == b"MAIL FROM:<ada@example.org> BODY=8BITMIME\r\n"


def test_bdat() -> None:
    """By BDAT where it is large or binary, and offered."""
    def by_bdat(given: Envelope, offered: Capabilities, size: int) -> bool:
        found = said(given, offered, size=size, bdat_size_min=500)
        assert isinstance(found, MailCommand)
        return found.bdat

    assert by_bdat(envelope(), ALL, 500)
    assert not by_bdat(envelope(), ALL, 499)
    assert not by_bdat(envelope(), NOTHING, 500)
    assert by_bdat(envelope(body=Body.BINARY_MIME), ALL, 1)


@pytest.mark.parametrize(
    ("recipient", "offered", "smtputf8", "command"),
    [
        (Recipient(ADA), ALL, False, "RCPT TO:<ada@example.org>"),
        (Recipient(Address("Postmaster", "")), ALL, False, "RCPT TO:<Postmaster>"),
        (Recipient(UTF8), ALL, True, "RCPT TO:<jürgen@xn--mnchen-3ya.example>"),
        (Recipient(ADA, Notify.NEVER), ALL, False, "RCPT TO:<ada@example.org> NOTIFY=NEVER"),
        (
            Recipient(ADA, Notify.SUCCESS | Notify.DELAY | Notify.FAILURE), ALL, False,
            "RCPT TO:<ada@example.org> NOTIFY=SUCCESS,FAILURE,DELAY",
        ),
        (Recipient(ADA, Notify.NEVER, "rfc822;a@b"), NOTHING, False, "RCPT TO:<ada@example.org>"),
        (
            Recipient(ADA, orcpt="rfc822;a+b=c d@x"), ALL, False,
            "RCPT TO:<ada@example.org> ORCPT=rfc822;a+2Bb+3Dc+20d@x",
        ),
        (Recipient(ADA, orcpt="RFC822;Ada@X"), ALL, False, "RCPT TO:<ada@example.org> ORCPT=RFC822;Ada@X"),
        (
            Recipient(ADA, orcpt="utf-8;jürgen+x@y"), ALL, True,
            "RCPT TO:<ada@example.org> ORCPT=utf-8;jürgen\\x{2B}x@y",
        ),
        (
            Recipient(ADA, orcpt="utf-8;jürgen@y"), parse(("mx", "DSN")), False,
            "RCPT TO:<ada@example.org> ORCPT=utf-8;j\\x{FC}rgen@y",
        ),
        (
            Recipient(ADA, given=Address("alias", "a.test")), ALL, False,
            "RCPT TO:<ada@example.org> ORCPT=rfc822;alias@a.test",
        ),
        (Recipient(ADA, given=Address("alias", "a.test")), NOTHING, False, "RCPT TO:<ada@example.org>"),
        (
            Recipient(ADA, parameters=(("RRVS", "2014-04-03T23:01:00Z"), ("X", "y"))), ALL, False,
            "RCPT TO:<ada@example.org> RRVS=2014-04-03T23:01:00Z",
        ),
        (Recipient(ADA, parameters=(("RRVS", "2014-04-03T23:01:00Z;C"),)), NOTHING, False, "RCPT TO:<ada@example.org>"),
        (
            Recipient(ADA, parameters=(("RRVS", "2014-04-03T23:01:00Z;H"),)), ALL, False,
            "RCPT TO:<ada@example.org> RRVS=2014-04-03T23:01:00Z;C",
        ),
    ],
)
def test_rcpt(recipient: Recipient, offered: Capabilities, smtputf8: bool, command: str) -> None:
    assert rcpt(recipient, offered, smtputf8=smtputf8) == command.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("address", "status"), [(UTF8, "5.6.7"), (Address("a\nb", "x"), "5.1.3"), (Address("a\0b", "x"), "5.1.3")]
)
def test_a_recipient_that_cannot_be_said(address: Address, status: str) -> None:
    found = rcpt(Recipient(address), ALL, smtputf8=False)
    assert isinstance(found, Result)
    assert (found.status, found.reach, found.outcome) == (status, Reach.RECIPIENT, Outcome.FAILED)


@pytest.mark.parametrize(
    ("code", "given", "subject", "status"),
    [
        (550, "5.1.1", Subject.RECIPIENT, "5.1.1"),
        (550, "", Subject.RECIPIENT, "5.0.0"),
        (450, "", Subject.RECIPIENT, "4.0.0"),
        (552, "", Subject.RECIPIENT, "5.2.2"),
        (552, "", Subject.MESSAGE, "5.3.4"),
        (553, "", Subject.RECIPIENT, "5.1.3"),
        (553, "", Subject.SENDER, "5.0.0"),
        (452, "", Subject.MESSAGE, "4.3.1"),
        (421, "", Subject.SESSION, "4.3.2"),
        (599, "", Subject.MESSAGE, "5.0.0"),
    ],
)
def test_the_status_of_a_refusal(code: int, given: str, subject: Subject, status: str) -> None:
    found = refusal(Reply(code, given, ("no",)), Reach.RECIPIENT, subject)
    assert found.status == status
    assert found.outcome is (Outcome.FAILED if code >= 500 else Outcome.DEFERRED)
    assert found.reply == Reply(code, given, ("no",))
