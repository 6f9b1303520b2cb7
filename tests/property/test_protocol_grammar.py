"""parse∘format is the identity for mailboxes, xtext and ORCPT; the grammar never raises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.address import Address, path
from postroad.mail.reply import Reply
from postroad.protocol.command import Mail, Rcpt
from postroad.protocol.extension import terms
from postroad.protocol.grammar import (
    orcpt_decode,
    orcpt_encode,
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
from tests.unit.protocol.host import ALL

LIMITS = ProtocolLimits()
TERMS = terms(ALL, LIMITS, Dialect.SMTP)
MAIL = TERMS.mail | {"BINARYMIME", "SMTPUTF8"}
RCPT = TERMS.rcpt | {"BINARYMIME", "SMTPUTF8"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
# What a local-part may hold: no ASCII control characters (RFC 5321 §4.1.2, RFC 6531 §3.3)
local_parts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(n) for n in (*range(32), 127)]), max_size=30
)
labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
domains = st.one_of(
    st.lists(labels, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(lambda address: f"[IPv6:{address}]"),
)
addresses = st.builds(Address, local_parts, domains)


@given(addresses)
def test_a_mailbox_is_read_as_it_was_written(address: Address) -> None:
    assert parse_mailbox(str(address)) == address
    mail = parse_mail(f"MAIL FROM:{path(address)} SMTPUTF8".encode(), MAIL, LIMITS)
    assert isinstance(mail, Mail) and mail.reverse_path == address
    rcpt = parse_rcpt(f"RCPT TO:<@a.example:{address!s}>".encode(), RCPT, LIMITS, smtputf8=True)
    assert isinstance(rcpt, Rcpt) and rcpt.forward_path == address


@given(texts)
def test_what_parses_is_written_as_what_parses_again(text: str) -> None:
    address = parse_mailbox(text)
    if address is not None:
        assert parse_mailbox(str(address)) == address


@given(texts)
def test_xtext(text: str) -> None:
    encoded = xtext_encode(text)
    assert encoded.isascii() and " " not in encoded and "=" not in encoded
    assert xtext_decode(encoded) == text


@given(texts)
def test_xtext_is_strict(text: str) -> None:
    decoded = xtext_decode(text)
    if decoded is not None:
        assert xtext_decode(xtext_encode(decoded)) == decoded


@given(st.sampled_from(["rfc822", "x400", "RFC822"]), printable.filter(bool))
def test_orcpt(addr_type: str, address: str) -> None:
    orcpt = f"{addr_type};{address}"
    for smtputf8 in (False, True):
        encoded = orcpt_encode(orcpt, smtputf8=smtputf8)
        assert encoded.isascii() and orcpt_decode(encoded) == orcpt


@given(local_parts.filter(bool))
def test_orcpt_of_utf8(address: str) -> None:
    orcpt = f"utf-8;{address}"
    for smtputf8 in (False, True):
        encoded = orcpt_encode(orcpt, smtputf8=smtputf8)
        assert smtputf8 or encoded.isascii()
        assert " " not in encoded and "=" not in encoded
        if "\ufffe" not in address and len(encoded) <= 500:
            assert orcpt_decode(encoded) == orcpt


parts = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [b"MAIL FROM:", b"RCPT TO:", b"<", b">", b"@", b'"', b"\\", b" SIZE=1", b" ORCPT=utf-8;\\x{", b"}", b",",
             b" ENVID=", b"+0A", b"[IPv6:", b"]", b"a@b.example", b":", b" NOTIFY=", b"xn--", b"\xc3\xa4"]
        ),
    ),
    max_size=10,
)  # fmt: skip


@settings(max_examples=500)
@given(parts)
def test_nothing_raises_and_nothing_unclean_comes_out(pieces: list[bytes]) -> None:
    line = b"".join(pieces)
    for verb in (b"", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<"):
        mail = parse_mail(verb + line, MAIL, LIMITS)
        plain = plain_mail(verb + line)
        assert plain is None or plain == mail
        if isinstance(mail, Mail):
            for text in (str(mail.reverse_path), mail.envid, mail.auth, *(value for _, value in mail.parameters)):
                assert not set(text) & set("\r\n\0")
    for verb in (b"", b"RCPT TO:<a@b.example>", b"RCPT TO:<"):
        rcpt = parse_rcpt(verb + line, RCPT, LIMITS, smtputf8=True)
        plain_to = plain_rcpt(verb + line)
        assert plain_to is None or plain_to == rcpt
        if isinstance(rcpt, Rcpt):
            assert not set(str(rcpt.forward_path) + rcpt.orcpt) & set("\r\n\0")
        else:
            assert isinstance(rcpt, Reply) and rcpt.permanent
    parse_hello(line)
