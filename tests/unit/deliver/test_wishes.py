"""What couriers do with what a sender asks for: said where it is offered, carried as header fields, or refused."""

from __future__ import annotations

import email
from pathlib import Path

import pytest

from postroad.deliver.options import DeliverOptions
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Recipient
from postroad.mail.message import ContentFile
from postroad.mail.route import Transport
from postroad.protocol.sending import Security
from postroad.protocol.seven_bit import EightBit
from tests.unit.deliver.world import Stage, job

SINCE = (("RRVS", "2014-04-03T23:01:00Z;C"),)
BOB = Recipient(Address("bob", "example.net"), parameters=SINCE)
FIELD = b"Require-Recipient-Valid-Since: bob@example.net;\r\n\tThu, 3 Apr 2014 23:01:00 +0000\r\n"
PRIORITY = b"MT-Priority: 3\r\n"
CONTENT = b"Subject: x\r\n\r\n.hello\r\n"
TUNNEL = DeliverOptions(mt_priority_tunnel=True)


def test_header_fields_take_the_place_of_what_is_not_offered() -> None:
    """RFC 6758, RFC 7293 §3.2; SIZE counts them."""
    stage = Stage(options=TUNNEL)
    said = stage.carry(job(CONTENT, (BOB,), parameters=(("MT-PRIORITY", "3"),)))
    size = len(PRIORITY + FIELD + CONTENT)
    assert said == b"MAIL FROM:<ada@example.org> SIZE=%d\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n" % size
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == PRIORITY + FIELD + CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.mark.parametrize("offered", ["PIPELINING SIZE MT-PRIORITY RRVS CHUNKING", "PIPELINING SIZE CHUNKING"])
def test_in_chunks_too(offered: str) -> None:
    stage = Stage(offered, options=DeliverOptions(bdat_size_min=1, mt_priority_tunnel=True))
    said = stage.carry(job(CONTENT, (BOB,), parameters=(("MT-PRIORITY", "3"),)))
    prefix = b"" if "RRVS" in offered else PRIORITY + FIELD
    asked = b" MT-PRIORITY=3" if "RRVS" in offered else b""
    since = b" RRVS=2014-04-03T23:01:00Z;C" if "RRVS" in offered else b""
    size = len(prefix + CONTENT)
    assert said == (
        b"MAIL FROM:<ada@example.org> SIZE=%d%b\r\nRCPT TO:<bob@example.net>%b\r\n" % (size, asked, since)
    )
    stage.server("250 ok", "250 ok")
    assert stage.wire.taken() == b"BDAT %d LAST\r\n" % size + prefix + CONTENT


@pytest.mark.parametrize("chunking", [False, True])
def test_before_large_content_from_a_file(tmp_path: Path, chunking: bool) -> None:
    path = tmp_path / "content"
    path.write_bytes(CONTENT * 10)
    options = DeliverOptions(whole_max=10, piece_size=16, bdat_size_min=1, mt_priority_tunnel=True)
    stage = Stage("PIPELINING CHUNKING" if chunking else "PIPELINING", options=options)
    stage.carry(job(ContentFile(str(path), len(CONTENT) * 10), 1, parameters=(("MT-PRIORITY", "3"),)))
    stage.server("250 ok", "250 ok", "" if chunking else "354 go")
    sent = stage.wire.taken()
    if chunking:
        assert sent == b"BDAT %d LAST\r\n" % (len(CONTENT) * 10 + len(PRIORITY)) + PRIORITY + CONTENT * 10
    else:
        assert sent == PRIORITY + (CONTENT * 10).replace(b"\r\n.", b"\r\n..") + b".\r\n"


def test_nothing_is_told_of_one_recipient_to_others() -> None:
    """RFC 5321 §7.6"""
    stage = Stage("PIPELINING")
    stage.carry(job(CONTENT, (BOB, Recipient(Address("eve", "example.net")))))
    stage.server("250 ok", "250 ok", "250 ok", "354 go")
    assert b"Require-Recipient" not in stage.wire.taken()


def test_what_the_header_asks_already_is_not_put_before_it_again() -> None:
    stage = Stage("PIPELINING")
    bob = Recipient(BOB.address, parameters=(("RRVS", "2014-04-03T23:01:00Z;H"),))
    stage.carry(job(CONTENT, (bob,)))
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken().startswith(b"Subject")


@pytest.mark.parametrize("kind", [Transport.SMTP, Transport.LMTP])
def test_rrvs_that_must_not_be_lost(kind: Transport) -> None:
    """Over LMTP the mail comes to its end, and we have compared already."""
    final = kind is Transport.LMTP
    stage = Stage("PIPELINING", kind=kind, security=Security(final=final))
    bob = Recipient(BOB.address, parameters=(("RRVS", "2014-04-03T23:01:00Z"),))
    stage.carry(job(CONTENT, (bob,)))
    if final:
        stage.server("250 ok", "250 ok", "354 go")
        stage.server("250 2.0.0 ok")
    assert stage.outcomes() == [("delivered" if final else "failed", "recipient", "2.0.0" if final else "5.7.19")]


@pytest.mark.parametrize(
    ("offered", "by", "outcome", "status", "said"),
    [
        ("PIPELINING DELIVERBY", "120;RT", "relayed", "2.0.0", " BY=120;RT"),
        ("PIPELINING DELIVERBY:60", "120;R", "relayed", "2.0.0", " BY=120;R"),
        ("PIPELINING DELIVERBY:300", "120;R", "failed", "5.4.7", None),
        ("PIPELINING DELIVERBY:300", "120;N", "relayed", "2.0.0", " BY=120;N"),
        ("PIPELINING", "120;R", "failed", "5.3.3", None),
        ("PIPELINING", "120;N", "relayed", "2.0.0", ""),
    ],
)
def test_deliverby(offered: str, by: str, outcome: str, status: str, said: str | None) -> None:
    """RFC 2852; the attempt says whether the time was passed on."""
    stage = Stage(offered)
    written = stage.carry(job(CONTENT, parameters=(("BY", by),)))
    if said is not None:
        assert written.startswith(b"MAIL FROM:<ada@example.org>%b\r\n" % said.encode())
        stage.server("250 ok", "250 ok", "354 go")
        stage.server("250 2.0.0 ok")
    assert [(each.outcome.value, each.status) for each in stage.done[0]] == [(outcome, status)]
    assert stage.done[0][0].by_passed is ("DELIVERBY" in offered)


def test_to_lmtp_nothing_of_the_way_is_demanded() -> None:
    """RFC 2033: the mail comes to its end there, on our own machine or beside it."""
    stage = Stage("PIPELINING", kind=Transport.LMTP, security=Security(final=True))
    stage.carry(job(CONTENT, parameters=(("BY", "120;R"), ("REQUIRETLS", ""))))
    stage.server("250 ok", "250 ok", "354 go")
    stage.server("250 2.0.0 ok")
    assert stage.outcomes() == [("delivered", "recipient", "2.0.0")]


def test_requiretls_is_said_under_tls_only() -> None:
    """RFC 8689 §4.1; a report (§5) goes on all the same."""
    for tls in (True, False):
        stage = Stage("PIPELINING REQUIRETLS", security=Security(tls=tls, verified=tls))
        given = job(CONTENT, parameters=(("REQUIRETLS", ""),))
        report = given.__class__(
            given.envelope.__class__(7, None, given.envelope.recipients, 10, 0, parameters=(("REQUIRETLS", ""),)),
            given.recipients, given.content, given.destination, None,
        )
        assert stage.carry(report).startswith(b"MAIL FROM:<> REQUIRETLS\r\n" if tls else b"MAIL FROM:<>\r\n")


BINARY = b"Content-Transfer-Encoding: binary\r\n\r\n\0\r.\n\n.\r\n.\r\nQUIT\r\n\xff"


@pytest.mark.parametrize(
    ("offered", "body"),
    [
        ("PIPELINING CHUNKING BINARYMIME", " BODY=BINARYMIME"),
        ("PIPELINING 8BITMIME CHUNKING", " BODY=8BITMIME"),
        ("PIPELINING BINARYMIME", ""),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_binary_content(tmp_path: Path, offered: str, body: str, large: bool) -> None:
    """RFC 3030 §3: octet for octet by BDAT where both are offered, else converted, or returned."""
    path = tmp_path / "content"
    path.write_bytes(BINARY)
    content = ContentFile(str(path), len(BINARY)) if large else BINARY
    stage = Stage(offered, options=DeliverOptions(whole_max=10, piece_size=8) if large else None)
    mail = stage.carry(job(content, body=Body.BINARY_MIME))
    assert mail.startswith(f"MAIL FROM:<ada@example.org>{body}\r\n".encode())
    if "BINARY" in body:
        stage.server("250 ok", "250 ok")
        assert stage.wire.taken() == b"BDAT %d LAST\r\n" % len(BINARY) + BINARY
    else:
        stage.server("250 ok", "250 ok", "354 go")
        sent = stage.wire.taken()
        assert sent.endswith(b"\r\n.\r\n")
        message = email.message_from_bytes(sent)
        assert message.get_payload(decode=True) == BINARY.partition(b"\r\n\r\n")[2]
    stage.server("250 2.0.0 ok")
    assert stage.outcomes() == [("relayed", "recipient", "2.0.0")]
    assert ("converted to" in stage.done[0][0].text) is (body != " BODY=BINARYMIME")
    if body == " BODY=8BITMIME":
        stage = Stage(offered, options=DeliverOptions(eight_bit=EightBit.SEND))
        assert stage.carry(job(content, body=Body.BINARY_MIME)) == b""
        assert stage.outcomes() == [("failed", "message", "5.6.1")]
