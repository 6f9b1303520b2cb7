from __future__ import annotations

import time

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Body, Notify, Ret
from postroad.mail.reply import Reply
from postroad.protocol.command import Mail, Rcpt
from postroad.protocol.extension import terms
from postroad.protocol.grammar import (
    orcpt_decode,
    orcpt_encode,
    parse_domain,
    parse_hello,
    parse_mail,
    parse_mailbox,
    parse_notify,
    parse_rcpt,
    plain_mail,
    plain_rcpt,
    unitext_encode,
    xtext_decode,
    xtext_encode,
)
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from tests.unit.protocol.host import ALL

LIMITS = ProtocolLimits()
TERMS = terms(ALL, LIMITS, Dialect.SMTP)
MAIL = TERMS.mail | {"BINARYMIME", "SMTPUTF8"}
RCPT = TERMS.rcpt | {"BINARYMIME", "SMTPUTF8"}


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("a@example.org", "a", "example.org"),
        ("A.b+c@EXAMPLE.org", "A.b+c", "example.org"),
        ('"a b"@example.org', "a b", "example.org"),
        ('"Joe\\,Smith"@example.org', "Joe,Smith", "example.org"),  # RFC 5321 §4.1.2
        ('"Joe.Smith"@example.org', "Joe.Smith", "example.org"),
        ('"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
        ('"a>b@c"@example.org', "a>b@c", "example.org"),
        ('""@example.org', "", "example.org"),
        ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~", "example.org"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
        ("a@[192.000.002.001]", "a", "[192.0.2.1]"),
        ("a@[IPv6:2001:DB8:0:0::1]", "a", "[IPv6:2001:db8::1]"),
        ("a@[ipv6:::ffff:192.0.2.1]", "a", "[IPv6:::ffff:192.0.2.1]"),
        ("a@[x400:c=de]", "a", "[x400:c=de]"),
        ("a@x_y.example.org", "a", "x_y.example.org"),
        ("jörg@müller.example", "jörg", "xn--mller-kva.example"),
        ("a@XN--MLLER-KVA.example", "a", "xn--mller-kva.example"),
        ("あ@ドメイン名例.jp", "あ", "xn--eckwd4c7cu47r2wf.jp"),
        ("-rf@example.org", "-rf", "example.org"),
        ("a..b@example.org", "a..b", "example.org"),
        (".a@example.org", ".a", "example.org"),
        ("a.@example.org", "a.", "example.org"),
    ],
)
def test_a_mailbox(text: str, local_part: str, domain: str) -> None:
    assert parse_mailbox(text) == Address(local_part, domain)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "@example.org", "a@", "a b@example.org",
        '"a@example.org', 'a"b@example.org', '"a"b@example.org', '"a\tb"@example.org', '"a\\\x7f"@example.org',
        "a@b@c", "a@-x.example", "a@example..org", "a@.example", "a@example.org.", "a@" + "x" * 64 + ".example",
        "a@" + ".".join(["x" * 60] * 5), "a@[192.0.2.256]", "a@[192.0.2]", "a@[]", "a@[IPv6:]", "a@[IPv6:1::2::3]",
        "a@[IPv6:fe80::1%eth0]", "a@[:x]", "a@[x-:y]", "a@[1.2.3.4", "a@1.2.3.4]", "a@[a b]", "a\r\n@example.org",
        "a@example.org\n", "a\x00b@example.org", "<a@example.org>", "a@exa mple.org", "(c)a@example.org", "a,b@c",
        "jörg@mü ller.example", "a@\u3002example", "a:b@c.example", "a;b@c.example",
        "a@b\u3002", "a@b\uff0e", "a@b\uff20c", "a@b\u00a0c", "a@b\u2024", "a@\u0660.\u3002",
    ],
)  # fmt: skip
def test_no_mailbox(text: str) -> None:
    assert parse_mailbox(text) is None


def test_one_domain_in_both_its_forms() -> None:
    assert parse_domain("bücher.example") == parse_domain("XN--BCHER-KVA.example") == "xn--bcher-kva.example"
    assert parse_domain("b\u3002example") == "b.example"
    assert parse_domain("example.org.") is None
    assert parse_domain("[192.0.2.1") is None


A_B = Address("a", "b.example")


@pytest.mark.parametrize(
    ("line", "mail"),
    [
        ("MAIL FROM:<a@b.example>", Mail(A_B)),
        ("mail from:<a@B.Example>", Mail(A_B)),
        ("MAIL FROM: <a@b.example> ", Mail(A_B)),
        ("MAIL FROM:<>", Mail(None)),
        ("MAIL FROM:<> SIZE=100", Mail(None, 100)),
        ("MAIL FROM:<@x.example,@y.example:a@b.example>", Mail(A_B)),
        ("MAIL FROM:<a@b.example>  SIZE=0  body=8bitmime", Mail(A_B, 0, Body.EIGHT_BIT_MIME)),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", Mail(A_B, body=Body.BINARY_MIME)),
        ("MAIL FROM:<a@b.example> BODY=7BIT", Mail(A_B)),
        ("MAIL FROM:<a@b.example> RET=hdrs ENVID=QQ+2B3", Mail(A_B, ret=Ret.HDRS, envid="QQ+3")),
        ("MAIL FROM:<a@b.example> SMTPUTF8", Mail(A_B, smtputf8=True)),
        ("MAIL FROM:<ä@b.example> smtputf8", Mail(Address("ä", "b.example"), smtputf8=True)),
        ("MAIL FROM:<a@ä.example> SMTPUTF8", Mail(Address("a", "xn--4ca.example"), smtputf8=True)),
        ("MAIL FROM:<a@b.example> AUTH=<>", Mail(A_B, auth="<>")),
        ("MAIL FROM:<e=mc2@example.com> AUTH=e+3Dmc2@example.com",  # RFC 4954 §5
         Mail(Address("e=mc2", "example.com"), auth="e=mc2@example.com")),
        ("MAIL FROM:<a@b.example> BY=120;R MT-PRIORITY=-3",
         Mail(A_B, parameters=(("BY", "120;R"), ("MT-PRIORITY", "-3")))),
        ("MAIL FROM:<a@b.example> HOLDFOR=60", Mail(A_B, parameters=(("HOLDFOR", "60"),))),
        ("MAIL FROM:<a@b.example> HOLDUNTIL=2026-11-23T12:00:00Z",
         Mail(A_B, parameters=(("HOLDUNTIL", "2026-11-23T12:00:00Z"),))),
    ],
)  # fmt: skip
def test_mail(line: str, mail: Mail) -> None:
    assert parse_mail(line.encode(), MAIL, LIMITS) == mail


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        ("MAIL", 501, "5.5.4"),
        ("MAIL <a@b.example>", 501, "5.5.4"),
        ("MAIL FROM", 501, "5.5.4"),
        ("MAIL TO:<a@b.example>", 501, "5.5.4"),
        ("MAIL FROM:a@b.example>", 501, "5.1.7"),
        ("MAIL FROM:<a@b.example", 501, "5.1.7"),
        ("MAIL FROM:a@b.example;x", 501, "5.1.7"),
        ("MAIL FROM:a b@c.example", 501, "5.1.7"),
        ("MAIL FROM:", 501, "5.1.7"),
        ("MAIL FROM:<a..b@c.example>", 501, "5.1.7"),
        ("MAIL FROM:.a@c.example", 501, "5.1.7"),
        ("MAIL FROM:<a@b.example", 501, "5.1.7"),
        ("MAIL FROM:<a>", 501, "5.1.7"),
        ("MAIL FROM:<Postmaster>", 501, "5.1.7"),
        ("MAIL FROM:< a@b.example>", 501, "5.1.7"),
        ("MAIL FROM:<@x..y:a@b.example>", 501, "5.1.7"),
        ("MAIL FROM:<@x,a@b.example>", 501, "5.1.7"),
        ("MAIL FROM:<a\r\nb@c.example>", 501, "5.1.7"),
        ("MAIL FROM:<a\0@c.example>", 501, "5.1.7"),
        ("MAIL FROM:<" + "a" * 501 + "@b.example>", 501, "5.1.7"),
        ("MAIL FROM:<a@b.example>SIZE=1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> =1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> -X=1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=-1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=1x", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=123456789012345678901", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=1 SIZE=1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=104857601", 552, "5.3.4"),
        ("MAIL FROM:<a@b.example> BODY=9BIT", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> RET=ALL", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> RET=FULL RET=FULL", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=a+0D+0Ab", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=a+00", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=a+2b", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=a+C3+A4", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=a+", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> ENVID=" + "x" * 101, 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> SMTPUTF8=1", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> AUTH=", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> AUTH=x", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> AUTH=a+0D+0Ab@c.example", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> HOLDFOR=1 HOLDUNTIL=2026-11-23T12:00:00Z", 501, "5.5.4"),
        ("MAIL FROM:<a@b.example> REQUIRETLS", 555, "5.5.4"),  # not offered without TLS
        ("MAIL FROM:<a@b.example> NOTIFY=NEVER", 555, "5.5.4"),  # of RCPT
        ("MAIL FROM:<a@b.example> X-OTHER=1", 555, "5.5.4"),
        ("MAIL FROM:<from: a@b.example>", 501, "5.1.7"),  # sSMTP 2.64, of a field named "from:"
        ("MAIL FROM:<a@b.example, c@b.example>", 501, "5.1.7"),  # sSMTP 2.64, of two authors
        ("MAIL FROM:<ä@b.example>", 550, "5.6.7"),
        ("MAIL FROM:<a@ä.example> SIZE=1", 550, "5.6.7"),
        ("MAIL FROM:<a@b.example> ENVID=ä SMTPUTF8", 501, "5.5.4"),
    ],
)
def test_bad_mail(line: str, code: int, status: str) -> None:
    answer = parse_mail(line.encode(), MAIL, LIMITS)
    assert isinstance(answer, Reply)
    assert (answer.code, answer.status) == (code, status)
    assert plain_mail(line.encode()) is None


@pytest.mark.parametrize(
    ("line", "rcpt"),
    [
        ("RCPT TO:<a@b.example>", Rcpt(A_B)),
        ("rcpt to: <a@b.example>", Rcpt(A_B)),
        ("RCPT TO:<Postmaster>", Rcpt(Address("postmaster", ""))),
        ("RCPT TO:<POSTMASTER> NOTIFY=NEVER", Rcpt(Address("postmaster", ""), Notify.NEVER)),
        ("RCPT TO:<Postmaster@b.example>", Rcpt(Address("Postmaster", "b.example"))),
        ("RCPT TO:<@hosta.int,@jkl.org:userc@d.bar.org>", Rcpt(Address("userc", "d.bar.org"))),  # RFC 5321 §4.1.1.3
        ('RCPT TO:<"a> b"@b.example> NOTIFY=SUCCESS,delay',
         Rcpt(Address("a> b", "b.example"), Notify.SUCCESS | Notify.DELAY)),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;Bob+2Bx@Example.COM", Rcpt(A_B, orcpt="rfc822;Bob+x@Example.COM")),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;ä@b.example", Rcpt(A_B, orcpt="utf-8;ä@b.example")),
        ("RCPT TO:<a@b.example> RRVS=2026-11-23T12:00:00Z;C",
         Rcpt(A_B, parameters=(("RRVS", "2026-11-23T12:00:00Z;C"),))),
        ("RCPT TO:<a@[192.0.2.1]>", Rcpt(Address("a", "[192.0.2.1]"))),
    ],
)  # fmt: skip
def test_rcpt(line: str, rcpt: Rcpt) -> None:
    assert parse_rcpt(line.encode(), RCPT, LIMITS, smtputf8=False) == rcpt


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        ("RCPT", 501, "5.5.4"),
        ("RCPT FROM:<a@b.example>", 501, "5.5.4"),
        ("RCPT TO:<>", 501, "5.1.3"),
        ("RCPT TO:<user>", 501, "5.1.3"),
        ("RCPT TO:<Postmaster", 501, "5.1.3"),
        ("RCPT TO:a@b.example>", 501, "5.1.3"),
        ("RCPT TO:postmaster@", 501, "5.1.3"),
        ("RCPT TO:postmasters", 501, "5.1.3"),
        ("RCPT TO:<a.@b.example>", 501, "5.1.3"),
        ("RCPT TO:<a@b.example>x", 501, "5.5.4"),
        ("RCPT TO:<" + "a" * 600 + "@b.example>", 501, "5.1.3"),
        ("RCPT TO:<@b.example>", 501, "5.1.3"),  # msmtp 1.8.23, of "b c"@b.example
        ("RCPT TO:<b c@b.example>", 501, "5.1.3"),  # nullmailer 2.2, of "b c"@b.example
        ("RCPT TO:<d,e@b.example>", 501, "5.1.3"),  # nullmailer 2.2, of "d,e"@b.example
        ("RCPT TO:<friends: b@b.example>", 501, "5.1.3"),  # sSMTP 2.64, of a group
        ("RCPT TO:<friends:b@b.example>", 501, "5.1.3"),  # esmtp 1.2, of a group
        ("RCPT TO:<c@b.example;>", 501, "5.1.3"),  # esmtp 1.2, of a group
        ("RCPT TO:<ä@b.example>", 553, "5.6.7"),
        ("RCPT TO:<a@b.example> NOTIFY=", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER,SUCCESS", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER NOTIFY=NEVER", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=a@b", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=;a@b", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;a+0D+0AX:y", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;a+00", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;a+0D+0AX:y", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;ä", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;a\\x{0A}b", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;a\\x{D800}b", 501, "5.5.4"),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;" + "x" * 500, 501, "5.5.4"),
        ("RCPT TO:<a@b.example> SIZE=1", 555, "5.5.4"),
    ],
)
def test_bad_rcpt(line: str, code: int, status: str) -> None:
    answer = parse_rcpt(line.encode(), RCPT, LIMITS, smtputf8=False)
    assert isinstance(answer, Reply)
    assert (answer.code, answer.status) == (code, status)
    assert plain_rcpt(line.encode()) is None


def test_utf8_is_checked_before_all() -> None:
    assert parse_mail(b"MAIL FROM:<\xff@b.example> SMTPUTF8", MAIL, LIMITS) == Reply(
        501, "5.5.2", ("Command is not UTF-8",)
    )
    parsed = parse_rcpt("RCPT TO:<ä@b.example>".encode(), RCPT, LIMITS, smtputf8=True)
    assert parsed == Rcpt(Address("ä", "b.example"))


def test_what_was_not_announced_is_not_known() -> None:
    for word in ("SIZE=1", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "AUTH=<>"):
        answer = parse_mail(f"MAIL FROM:<a@b.example> {word}".encode(), frozenset(), LIMITS)
        assert isinstance(answer, Reply) and answer.code == 555, word
    binary = parse_mail(b"MAIL FROM:<a@b.example> BODY=BINARYMIME", frozenset({"BODY"}), LIMITS)
    assert isinstance(binary, Reply) and binary.code == 555


@pytest.mark.parametrize(
    "line",
    ["<a@b.example>", "<A.b-c@B.Example>", "<a@x_y>", "<o'neil=x@b-c.d>", "<;`$()@x>",
     "<a@b.example.>", "<a@-b>", "<a@b>x"],
)  # fmt: skip
def test_the_plain_rule_agrees_with_the_whole_grammar(line: str) -> None:
    mail = plain_mail(b"MAIL FROM:" + line.encode())
    whole = parse_mail(b"MAIL FROM:" + line.encode(), MAIL, LIMITS)
    assert mail == (whole if isinstance(whole, Mail) else None)
    rcpt = plain_rcpt(b"rcpt to:" + line.encode())
    whole_rcpt = parse_rcpt(b"rcpt to:" + line.encode(), RCPT, LIMITS, smtputf8=False)
    assert rcpt == (whole_rcpt if isinstance(whole_rcpt, Rcpt) else None)


@pytest.mark.parametrize(
    ("value", "notify"),
    [
        ("NEVER", Notify.NEVER),
        ("never", Notify.NEVER),
        ("SUCCESS", Notify.SUCCESS),
        ("failure,DELAY", Notify.FAILURE | Notify.DELAY),
        ("SUCCESS,FAILURE,DELAY", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY),
        ("SUCCESS,,DELAY", Notify.SUCCESS | Notify.DELAY),
        ("SUCCESS,SUCCESS", Notify.SUCCESS),
        ("NEVER,NEVER", None),
        ("DELAY,NEVER", None),
        ("", None),
        (",", None),
        ("OTHER", None),
    ],
)
def test_notify(value: str, notify: Notify | None) -> None:
    assert parse_notify(value) == notify


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("", ""), ("abc", "abc"), ("a+b=c", "a+2Bb+3Dc"), ("a b", "a+20b"), ("ä", "+C3+A4"), ("\r\n", "+0D+0A")],
)
def test_xtext(text: str, encoded: str) -> None:
    assert xtext_encode(text) == encoded
    assert xtext_decode(encoded) == text


@pytest.mark.parametrize("text", ["+", "+2", "+2b", "+GG", "a b", "a=b", "ä", "+FF", "a\n"])
def test_no_xtext(text: str) -> None:
    assert xtext_decode(text) is None


@pytest.mark.parametrize(
    ("value", "orcpt", "ascii_form", "utf8_form"),
    [
        ("rfc822;a+2Bb@c", "rfc822;a+b@c", "rfc822;a+2Bb@c", "rfc822;a+2Bb@c"),
        ("rfc822;gr+C3+BCn@b", "utf-8;grün@b", "utf-8;gr\\x{FC}n@b", "utf-8;grün@b"),  # as Postfix writes it
        ("RFC822;A@B", "RFC822;A@B", "RFC822;A@B", "RFC822;A@B"),
        ("x400;/C=DE/".replace("=", "+3D"), "x400;/C=DE/", "x400;/C+3DDE/", "x400;/C+3DDE/"),
        ("utf-8;j\\x{F6}rg@b", "utf-8;jörg@b", "utf-8;j\\x{F6}rg@b", "utf-8;jörg@b"),
        ("utf-8;jörg@b", "utf-8;jörg@b", "utf-8;j\\x{F6}rg@b", "utf-8;jörg@b"),
        ("UTF-8;\\x{1F4E7}\\x{2B}\\x{5C}@b", "UTF-8;📧+\\@b",
         "UTF-8;\\x{1F4E7}\\x{2B}\\x{5C}@b", "UTF-8;📧\\x{2B}\\x{5C}@b"),
        ("utf-8;a+2Bb@c", "utf-8;a+b@c", "utf-8;a\\x{2B}b@c", "utf-8;a\\x{2B}b@c"),
    ],
)  # fmt: skip
def test_orcpt(value: str, orcpt: str, ascii_form: str, utf8_form: str) -> None:
    assert orcpt_decode(value) == orcpt
    assert orcpt_encode(orcpt, smtputf8=False) == ascii_form
    assert orcpt_encode(orcpt, smtputf8=True) == utf8_form
    assert orcpt_decode(ascii_form) == orcpt_decode(utf8_form) == orcpt


@pytest.mark.parametrize(
    "value",
    ["utf-8;\\x{41}", "utf-8;\\x{110000}", "utf-8;\\x{00F6}", "utf-8;\\x{f6}", "utf-8;\\y", "utf-8;a b", "utf-8;a=b",
     "utf-8;\\x{7F}", "rfc822;gr+C3+BC+0A", "utf-8;a+0Ab", "utf-8;a+00", "x400;gr+C3+BC", "rf c;a", "rfc822",
     "utf-8;a\x00"],
)  # fmt: skip
def test_no_orcpt(value: str) -> None:
    assert orcpt_decode(value) is None


def test_unitext_of_controls() -> None:
    assert unitext_encode("a b\n", smtputf8=True) == "a\\x{20}b\\x{0A}"


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        (b"bar.com", "bar.com"), (b"[192.0.2.1]", "[192.0.2.1]"), (b"[IPv6:::1] my pc", "[IPv6:::1]"),
        (b"DESKTOP_1", "DESKTOP_1"), (b"(none)", "(none)"), (b"", None), (b" x", None),
        ("ä.example".encode(), "ä.example"),
        (b"B\xfcro", "B\\xfcro"), (b"\x80" * 255, "\\x80" * 255), (b"\x80" * 256, None), (b"a\x7f", None),
        (b"x" * 255, "x" * 255), (b"x" * 256, None), (b"a\tb", None), (b"a\x00", None),
    ],
)  # fmt: skip
def test_hello(argument: bytes, name: str | None) -> None:
    assert parse_hello(argument) == name


@pytest.mark.parametrize(
    "hostile",
    [
        b"MAIL FROM:<" + b"a." * 5000, b"MAIL FROM:<" + b'"' + b"\\a" * 5000, b"MAIL FROM:<" + b"@a,"*5000,
        b"MAIL FROM:<a@b> " + b"A=1 " * 5000, b"MAIL FROM:<a@b> ENVID=" + b"+4" * 5000,
        b"MAIL FROM:<a@[" + b"1:" * 5000, b"MAIL FROM:<" + b"a" * 10000 + b"@" + b"b." * 5000 + b">",
    ],
)  # fmt: skip
def test_hostile_lines_take_linear_time(hostile: bytes) -> None:
    started = time.process_time()
    assert isinstance(parse_mail(hostile, MAIL, LIMITS), Reply)
    assert time.process_time() - started < 1.0  # quadratic or worse would take minutes


@pytest.mark.parametrize("wrapped", ["<{}>", "{}", " {}", "<@x.example:{}>"])
@pytest.mark.parametrize(
    ("text", "local_part"), [("a..b@c.example", "a..b"), ("a.@c.example", "a."), (".a@c.example", ".a")]
)
def test_loose_local_parts(text: str, local_part: str, wrapped: str) -> None:
    """Mailboxes that exist though RFC 5321 §4.1.2 knows no such Dot-string; they are written as Quoted-strings."""
    expected = Address(local_part, "c.example")
    line = wrapped.format(text)
    assert parse_mail(f"MAIL FROM:{line} SIZE=1".encode(), MAIL, LIMITS, loose=True) == Mail(expected, 1)
    assert parse_rcpt(f"RCPT TO:{line}".encode(), RCPT, LIMITS, smtputf8=False, loose=True) == Rcpt(expected)
    assert isinstance(parse_rcpt(f"RCPT TO:{line}".encode(), RCPT, LIMITS, smtputf8=False), Reply)
    assert str(expected) == f'"{local_part}"@c.example'
    assert parse_mailbox(str(expected)) == expected


@pytest.mark.parametrize("wrapped", ["<{}>", "{}", "<@x.example:{}>"])
def test_a_period_behind_the_domain(wrapped: str) -> None:
    """As zone files have it. Postfix 3.7 takes it and sends the domain without it."""
    line = wrapped.format("a@c.example.")
    expected = Address("a", "c.example")
    assert parse_mail(f"MAIL FROM:{line} SIZE=1".encode(), MAIL, LIMITS, loose=True) == Mail(expected, 1)
    assert parse_rcpt(f"RCPT TO:{line}".encode(), RCPT, LIMITS, smtputf8=False, loose=True) == Rcpt(expected)
    assert isinstance(parse_rcpt(f"RCPT TO:{line}".encode(), RCPT, LIMITS, smtputf8=False), Reply)
    for other in ("a@c.example..", "a@.", "a@.c.example", "a@c..example", "a@[192.0.2.1].."):
        given = f"RCPT TO:{wrapped.format(other)}".encode()
        assert isinstance(parse_rcpt(given, RCPT, LIMITS, smtputf8=False, loose=True), Reply)


@pytest.mark.parametrize(
    ("line", "address", "size"),
    [
        ("MAIL FROM:a@b.example", "a@b.example", 0),
        ("MAIL FROM: a@b.example  SIZE=5", "a@b.example", 5),
        ('mail from:"a b"@b.example SIZE=5', '"a b"@b.example', 5),
        ("MAIL FROM:a@[192.0.2.1]", "a@[192.0.2.1]", 0),
    ],
)
def test_paths_without_brackets(line: str, address: str, size: int) -> None:
    assert parse_mail(line.encode(), MAIL, LIMITS) == Mail(parse_mailbox(address), size)
    as_rcpt = "RCPT TO:" + line.partition(":")[2].partition("SIZE")[0].rstrip()
    assert parse_rcpt(as_rcpt.encode(), RCPT, LIMITS, smtputf8=False) == Rcpt(parse_mailbox(address))  # type: ignore[arg-type]
    assert parse_rcpt(b"RCPT TO:Postmaster", RCPT, LIMITS, smtputf8=False) == Rcpt(Address("postmaster", ""))


@pytest.mark.parametrize("value", ["<a@b.example>", "a@b.example", "+3Ca@b.example+3E"])
def test_auth_with_and_without_brackets(value: str) -> None:
    mail = parse_mail(f"MAIL FROM:<> AUTH={value}".encode(), MAIL, LIMITS)
    assert isinstance(mail, Mail) and mail.auth == "a@b.example"
