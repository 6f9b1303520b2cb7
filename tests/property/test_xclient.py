"""XCLIENT and XFORWARD: what our client tells of a client, our server reads as the same; any octets never raise."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail import identifier
from postroad.mail.envelope import Envelope, Forwarded, Peer
from postroad.mail.reply import Reply
from postroad.protocol.command import Xclient, Xforward
from postroad.protocol.speaking_for import SpokenFor, xclient
from postroad.protocol.xclient import parse_xclient, parse_xforward, xforward

OFFERED = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40).filter(
    lambda text: text.upper() not in ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
)
addresses = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str).filter(lambda text: not text.startswith("::ffff:"))
)
facts = st.builds(
    Forwarded,
    name=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True), address=addresses, port=st.integers(1, 65_535),
    protocol=st.sampled_from(["SMTP", "ESMTP"]), hello=words, ident=words, source=st.sampled_from(["LOCAL", "REMOTE"]),
)  # fmt: skip


@settings(deadline=None)
@given(facts)
def test_what_is_told_is_read_as_the_same(told: Forwarded) -> None:
    envelope = Envelope(1, None, (), 1, 1, peer=Peer(forwarded=told))
    read: dict[str, str] = {}
    for line in xforward(envelope, OFFERED):
        assert line.endswith(b"\r\n") and len(line) <= 512 and line.startswith(b"XFORWARD ")
        parsed = parse_xforward(line[9:-2])
        assert isinstance(parsed, Xforward), (line, parsed)
        read |= {key: value for key, value in msgspec.structs.asdict(parsed).items() if value is not None}
    assert read == {
        "name": told.name, "address": told.address, "port": str(told.port), "protocol": told.protocol,
        "hello": told.hello, "ident": told.ident or identifier.text(1), "source": told.source,
    }  # fmt: skip


clients = st.builds(
    SpokenFor, address=addresses, port=st.integers(1, 65_535),
    name=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,200}", fullmatch=True),
    hello=st.one_of(words, st.text("x", min_size=200, max_size=300)), protocol=st.sampled_from(["SMTP", "ESMTP"]),
    login=st.one_of(words, st.just("ädä@bücher.example"), st.text("l", min_size=200, max_size=300)),
    destination=addresses, destination_port=st.integers(1, 65_535),
)  # fmt: skip


@settings(deadline=None)
@given(clients)
def test_the_client_that_is_named_is_read_as_the_same(told: SpokenFor) -> None:
    """One line, with all attributes; a text that is too long for it is not known."""
    line = xclient(told, "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
    assert line.startswith(b"XCLIENT ") and line.endswith(b"\r\n") and len(line) <= 512
    read = parse_xclient(line[8:-2])
    assert isinstance(read, Xclient), (line, read)
    assert (read.address, read.port, read.protocol) == (told.address, str(told.port), told.protocol)
    assert (read.destination, read.destination_port) == (told.destination, str(told.destination_port))
    for text, one in ((told.login, read.login), (told.hello, read.hello), (told.name, read.name)):
        assert one == text or (one == "" and len(told.login + told.hello + told.name) > 200)


pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [b"NAME=", b"ADDR=", b"IPV6:", b"PORT=9", b" ", b"LOGIN=", b"+0A", b"+2B", b"[UNAVAILABLE]", b"="]
        ),
        st.binary(max_size=12),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_any_octets(octets: list[bytes]) -> None:
    for parsed in (parse_xclient(b"".join(octets)), parse_xforward(b"".join(octets))):
        if isinstance(parsed, Xclient | Xforward):
            for value in msgspec.structs.astuple(parsed):
                assert value is None or (value.isprintable() and len(value.encode()) <= 255)
        else:
            assert isinstance(parsed, Reply) and parsed.code == 501
