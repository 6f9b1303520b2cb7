"""The courier over SMTP and LMTP, on a loop whose time we turn and a wire that we hold both ends of."""

from __future__ import annotations

import base64
import email
from pathlib import Path

import msgspec
import pytest

from postroad.deliver.options import DeliverOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Body, Notify, Recipient, Ret
from postroad.mail.job import Job
from postroad.mail.message import ContentFile
from postroad.mail.reply import Reply
from postroad.mail.route import Transport
from postroad.mail.tls_details import TlsDetails
from postroad.protocol.sending import Security
from postroad.protocol.seven_bit import EightBit
from tests.unit.deliver.world import Stage, job

RELAYED = ("relayed", "recipient", "2.0.0")
ENVELOPE = b"MAIL FROM:<ada@example.org> SIZE=21\r\nRCPT TO:<r0@example.net>\r\nDATA\r\n"
CONTENT = b"Subject: x\r\n\r\nhello\r\n.\r\n"
EIGHT_BIT = "Subject: x\r\n\r\nä\r\n".encode()


def file(tmp_path: Path, octets: bytes) -> ContentFile:
    path = tmp_path / "content"
    path.write_bytes(octets)
    return ContentFile(str(path), len(octets))


# -- one message


def test_two_writes_and_an_attempt_that_tells_all() -> None:
    stage = Stage()
    given = job()
    stage.courier.carry(given, lambda job, attempts: stage.done.append(attempts))
    assert stage.wire.writes == [ENVELOPE]
    stage.wire.taken()
    stage.server("250 2.1.0 ok", "250 2.1.5 ok", "354 go")
    assert stage.wire.writes == [CONTENT]
    stage.server("250 2.0.0 queued as 7")
    (attempt,) = stage.done[0]
    assert attempt == Attempt(
        Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", "", Reply(250, "2.0.0", ("queued as 7",)), "mx.example.net",
        "192.0.2.7", 25, "TLSv1.3 X", True, attempt.started_us, attempt.took_us, 777, "smtp", False, TlsDetails(256),
    )
    assert attempt.started_us and attempt.took_us
    assert stage.courier.usable
    stage.carry(job())
    stage.server("250 ok", "250 ok", "354 go")
    stage.server("250 ok")
    assert stage.done[1][0].connect_us == 0  # a kept connection


def test_every_split_of_what_the_server_says() -> None:
    said = b"250 2.1.0 ok\r\n550 5.1.1 no\r\n250-2.1.5 well\r\n250 2.1.5 ok\r\n354 go\r\n"
    for cut in range(1, len(said)):
        stage = Stage()
        stage.carry(job(to=2))
        stage.courier.data_received(said[:cut])
        stage.courier.data_received(said[cut:])
        assert stage.wire.taken() == CONTENT
        end = b"250 2.0.0 ok\r\n"
        for at in range(len(end)):
            stage.courier.data_received(end[at : at + 1])
        assert stage.outcomes() == [("failed", "recipient", "5.1.1"), RELAYED]


def test_text_for_people() -> None:
    stage = Stage()
    stage.carry(job(to=2))
    stage.server("250 ok", "550 5.1.1 no such user", "450 4.2.1 busy", "503 no")
    assert [attempt.text for attempt in stage.done[0]] == [
        "the remote refused the recipient", "the remote refused the recipient for now"
    ]


def test_no_pipelining() -> None:
    stage = Stage("SIZE")
    assert stage.carry(job()) == b"MAIL FROM:<ada@example.org> SIZE=21\r\n"
    stage.server("250 ok")
    assert stage.wire.taken() == b"RCPT TO:<r0@example.net>\r\n"
    stage.server("250 ok")
    assert stage.wire.taken() == b"DATA\r\n"
    stage.server("354 go")
    assert stage.wire.taken() == CONTENT
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED]
    assert stage.done[0][0].dsn_passed is False


def test_done_may_carry_the_next_job() -> None:
    stage = Stage()
    given = job()

    def again(done: Job, attempts: tuple[Attempt, ...]) -> None:
        stage.done.append(attempts)
        assert stage.courier.usable
        if len(stage.done) < 50:
            stage.courier.carry(given, again)

    stage.courier.carry(given, again)
    for _ in range(50):
        stage.server("250 ok", "250 ok", "354 go")
        stage.server("250 ok")
    assert len(stage.done) == 50
    assert stage.wire.taken() == (ENVELOPE + CONTENT) * 50
    assert stage.loop.armed <= 3, "a timer for each message is too many"


def test_lmtp() -> None:
    stage = Stage(kind=Transport.LMTP)
    stage.carry(job(to=3))
    stage.server("250 ok", "250 ok", "550 5.1.1 no", "250 ok", "354 go")
    stage.server("250 2.0.0 stored")
    assert not stage.done
    stage.server("452 4.2.2 full")
    assert stage.outcomes() == [
        ("delivered", "recipient", "2.0.0"), ("failed", "recipient", "5.1.1"), ("deferred", "recipient", "4.2.2")
    ]
    assert stage.done[0][0].transport == "lmtp"


# -- what is found before MAIL


@pytest.mark.parametrize(
    ("offered", "given", "status"),
    [
        ("SIZE:20", job(), "5.3.4"),
        ("PIPELINING", job(b"Content-Type: message/partial\r\n\r\n\xff\r\n", body=Body.EIGHT_BIT_MIME), "5.6.3"),
        ("8BITMIME", job(b"Content-Type: message/partial\r\n\r\n\x00", body=Body.BINARY_MIME), "5.6.1"),
        ("8BITMIME", job("Subject: ü\r\n\r\n".encode(), smtputf8=True, body=Body.EIGHT_BIT_MIME), "5.6.9"),
        ("PIPELINING", job(b"a\nb\r\n"), "5.6.1"),
        ("PIPELINING", job(b"a\r\n.\r"), "5.6.1"),
        ("PIPELINING", job(b"Subject: x\r\n\r\na\n.\r\nMAIL FROM:<evil@x>\r\n"), "5.6.1"),
    ],
)
def test_what_cannot_be_sent_says_nothing_to_the_remote(offered: str, given: Job, status: str) -> None:
    stage = Stage(offered)
    assert stage.carry(given) == b""
    assert stage.outcomes() == [("failed", "message", status)]
    assert stage.courier.usable


def test_eight_bit_mime_that_is_ascii_goes_as_it_is() -> None:
    stage = Stage("PIPELINING")
    assert stage.carry(job(body=Body.EIGHT_BIT_MIME)).startswith(b"MAIL FROM:<ada@example.org>\r\n")


def test_a_recipient_that_cannot_be_said_leaves_the_others() -> None:
    to = (Recipient(Address("jürgen", "example.net")), Recipient(Address("ada", "example.net")))
    stage = Stage()
    assert b"RCPT TO:<ada@example.net>\r\nDATA\r\n" in stage.carry(job(to=to))
    stage.server("250 ok", "250 ok", "354 go")
    stage.server("250 ok")
    assert stage.outcomes() == [("failed", "recipient", "5.6.7"), RELAYED]
    stage = Stage()
    assert stage.carry(job(to=to[:1])) == b""
    assert stage.outcomes() == [("failed", "recipient", "5.6.7")]


# -- too many recipients


def test_recipients_for_whom_there_was_no_room_follow_in_the_next_transaction() -> None:
    """RFC 5321 §4.5.3.1.10"""
    stage = Stage()
    stage.carry(job(to=4))
    stage.server("250 ok", "250 ok", "550 5.1.1 no", "452 4.5.3 too many", "452 4.5.3 too many", "354 go")
    assert stage.wire.taken() == CONTENT
    stage.server("250 ok")
    assert not stage.done
    assert stage.wire.taken() == (
        b"MAIL FROM:<ada@example.org> SIZE=21\r\nRCPT TO:<r2@example.net>\r\nRCPT TO:<r3@example.net>\r\nDATA\r\n"
    )
    stage.server("250 ok", "250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == CONTENT
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED, ("failed", "recipient", "5.1.1"), RELAYED, RELAYED]


def test_limits_are_obeyed() -> None:
    """RFC 9422"""
    stage = Stage("PIPELINING LIMITS:RCPTMAX=2_MAILMAX=2")
    assert stage.carry(job(to=5)).count(b"RCPT") == 2
    stage.server("250 ok", "250 ok", "250 ok", "354 go")
    stage.wire.taken()
    stage.server("250 ok")
    assert stage.wire.taken().count(b"RCPT") == 2
    stage.server("250 ok", "250 ok", "250 ok", "354 go")
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED] * 4 + [("deferred", "session", "4.5.3")]
    assert not stage.courier.usable


def test_limit_of_domains() -> None:
    to = tuple(Recipient(Address("a", domain)) for domain in ("x", "y", "x"))
    stage = Stage("PIPELINING LIMITS:RCPTDOMAINMAX=1")
    assert stage.carry(job(to=to)).count(b"@x>") == 2
    stage.server("250 ok", "250 ok", "550 no", "354 go")
    stage.wire.taken()
    stage.server("250 ok")
    assert stage.wire.taken() == b"", "RFC 9422 §4.3: it counts for the whole session"
    assert stage.outcomes() == [RELAYED, ("deferred", "session", "4.5.3"), ("failed", "recipient", "5.0.0")]
    assert not stage.courier.usable, "the next message may be to any domain"


def test_limit_of_domains_where_there_is_one() -> None:
    """A destination by MX is that of one domain, so that its connection is kept."""
    stage = Stage("PIPELINING LIMITS:RCPTDOMAINMAX=1")
    for _ in range(2):
        assert stage.carry(job()).count(b"@example.net>") == 1
        stage.server("250 ok", "250 ok", "354 go")
        stage.server("250 ok")
        assert stage.done.pop()[0].outcome.value == "relayed"
        assert stage.courier.usable


# -- large content


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("piece_size", [1, 2, 3, 7, 64, 100_000])
def test_large_content_in_pieces(tmp_path: Path, in_file: bool, piece_size: int) -> None:
    octets = b"Subject: x\r\n\r\n.\r\n..\r\n.a\r\n\r\n.b" + b"c" * 50
    options = DeliverOptions(whole_max=10, piece_size=piece_size)
    stage = Stage(options=options)
    stage.carry(job(file(tmp_path, octets) if in_file else octets))
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == octets.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n"
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED]


def test_large_content_waits_for_the_socket(tmp_path: Path) -> None:
    octets = b"x" * 1000
    stage = Stage(options=DeliverOptions(whole_max=10, piece_size=100), pause_above=250)
    stage.carry(job(file(tmp_path, octets)))
    stage.server("250 ok", "250 ok", "354 go")
    sent = b""
    for _ in range(20):
        assert sum(map(len, stage.wire.writes)) <= 400
        sent += stage.wire.taken()
        stage.loop.run()
    assert sent == octets + b"\r\n.\r\n"
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED]


def test_bdat_for_large_content(tmp_path: Path) -> None:
    octets = b"x" * 950 + b"\r\n.\r\n"
    options = DeliverOptions(whole_max=10, piece_size=100, bdat_size_min=500)
    for content in (octets, file(tmp_path, octets)):
        stage = Stage("PIPELINING CHUNKING", options=options)
        assert stage.carry(job(content)) == b"MAIL FROM:<ada@example.org>\r\nRCPT TO:<r0@example.net>\r\n"
        stage.server("250 ok", "250 ok")
        assert stage.wire.taken() == b"BDAT 955 LAST\r\n" + octets
        stage.server("250 ok")
        assert stage.outcomes() == [RELAYED]


@pytest.mark.parametrize("body", [Body.EIGHT_BIT_MIME, Body.BINARY_MIME])
def test_bdat_on_a_kept_connection_comes_behind_ehlo_so_that_no_late_reply_counts(body: Body) -> None:
    """BDAT has no 354: with a late 250 for MAIL's, the message would have been relayed by the answer to its RCPT."""
    stage = Stage("PIPELINING CHUNKING BINARYMIME 8BITMIME", options=DeliverOptions(bdat_size_min=1))
    stage.carry(job(body=body))
    stage.server("250 ok", "250 ok")
    assert stage.wire.taken().startswith(b"BDAT 21 LAST\r\n")
    stage.server("250 done")
    assert stage.carry(job(body=body)) == b"EHLO me.test\r\n"
    stage.server("250-mx", "250-PIPELINING", "250-CHUNKING", "250-BINARYMIME", "250 8BITMIME")
    assert stage.wire.taken().startswith(b"MAIL FROM:")
    stage.server("250 ok", "250 ok")
    assert stage.wire.taken().startswith(b"BDAT 21 LAST\r\n")
    stage.server("250 done")
    assert stage.carry(job(body=body)) == b"EHLO me.test\r\n"
    stage.server("250 late")
    assert [attempt.outcome.value for attempt, in stage.done] == ["relayed", "relayed", "deferred"]
    assert stage.done[2][0].reach is Reach.SESSION and not stage.courier.usable


def test_binary_content_by_bdat() -> None:
    octets = b"\x00\r\n.\r\n\n\r"
    stage = Stage("CHUNKING BINARYMIME 8BITMIME PIPELINING")
    assert b" BODY=BINARYMIME\r\n" in stage.carry(job(octets, body=Body.BINARY_MIME))
    stage.server("250 ok", "250 ok")
    assert stage.wire.taken() == b"BDAT 8 LAST\r\n" + octets
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED]


NO_BDAT = pytest.mark.parametrize("refusal", ["500 what?", "502 5.5.1 no", "503 5.5.1 bad sequence", "555 5.5.4 no"])


@NO_BDAT
@pytest.mark.parametrize("whole_max", [1, 1_000_000])
def test_bdat_refused_as_a_command_leads_to_another_connection_by_data(refusal: str, whole_max: int) -> None:
    """What the remote makes of the octets of the chunk nobody knows. Who was refused before keeps that answer."""
    stage = Stage("PIPELINING CHUNKING", options=DeliverOptions(bdat_size_min=1, whole_max=whole_max))
    told: list[str] = []
    stage.courier.set_out(elsewhere=False, failed=lambda: None, broken=told.append)
    stage.carry(job(to=2))
    if whole_max == 1:  # the refusal comes while the content is on its way
        stage.courier.data_received(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n")
        stage.courier.data_received(f"{refusal}\r\n".encode())
        stage.loop.run()
    else:
        stage.server("250 ok", "550 5.1.1 no", "250 ok")
        assert stage.wire.taken().startswith(b"BDAT 21 LAST\r\n")
        stage.server(refusal)
    assert stage.outcomes() == [("failed", "recipient", "5.1.1"), ("deferred", "session", "4.5.1")]
    assert told == ["CHUNKING"] and stage.courier.elsewhere and not stage.courier.usable


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((), []),  # silent, as a host that is gone
        (("250 ok",), ["PIPELINING"]),
        (("250 ok", "250 ok"), ["PIPELINING"]),
        (("550 no",), ["PIPELINING"]),
        (("250 ok", "250 ok", "354 go"), []),
    ],
)
def test_a_remote_that_answers_only_the_first_of_a_group(said: tuple[str, ...], told: list[str]) -> None:
    """It offers PIPELINING and throws away what comes behind a command."""
    for offered in ("PIPELINING", ""):
        stage = Stage(offered)
        broken: list[str] = []
        stage.courier.set_out(elsewhere=False, failed=lambda: None, broken=broken.append)
        stage.carry(job())
        for line in said if offered else said[:1]:
            stage.server(line)
        stage.loop.advance(3600)
        (attempt,) = stage.done[0]
        assert broken == (told if offered else [])
        if attempt.outcome is Outcome.DEFERRED:  # else the refusal of MAIL decides
            assert ("one command at a time" in attempt.text) is bool(broken)


# -- what was said of one message says nothing of the next


@pytest.mark.parametrize("octets", [b"4", b"421", b"250-half a reply\r\n"])
@pytest.mark.parametrize("when", ["with the last reply", "later"])
def test_octets_that_nobody_asked_for_make_the_connection_unusable(octets: bytes, when: str) -> None:
    stage = Stage()
    stage.carry(job())
    last = b"550 5.7.1 first refused\r\n503 no\r\n503 no\r\n"
    for said in (last + octets,) if when == "with the last reply" else (last, octets):
        stage.courier.data_received(said)
        stage.loop.run()
    assert stage.outcomes() == [("failed", "message", "5.7.1")]
    assert not stage.courier.usable and stage.wire.aborted
    assert stage.lost == ([stage.courier] if when == "later" else [])
    stage.carry(job())
    assert [(each.outcome.value, each.reply) for each in stage.done[1]] == [("deferred", None)]


@pytest.mark.parametrize("octets", [b"a\r\n" * 50 + b"b\n", b"a\r\n" * 50 + b"\r"])
def test_a_stray_line_end_in_large_content_never_ends_the_data(tmp_path: Path, octets: bytes) -> None:
    stage = Stage(options=DeliverOptions(whole_max=10, piece_size=20))
    stage.carry(job(file(tmp_path, octets)))
    stage.server("250 ok", "250 ok", "354 go")
    assert b"\r\n.\r\n" not in stage.wire.taken()
    assert stage.wire.aborted
    assert stage.outcomes() == [("failed", "message", "5.6.1")]
    assert not stage.courier.usable


LONG = b"Subject: x\r\n\r\n" + b"x" * 2_000 + b"\r\n.y\r\n"
BROKEN = b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n " + b"x" * 997 + b"\r\n " + b"x" * 5 + b"\r\n..y\r\n.\r\n"


@pytest.mark.parametrize("whole_max", [1_000_000, 10])
@pytest.mark.parametrize("line_max", [998, 0])
@pytest.mark.parametrize("filed", [False, True])
def test_long_lines_are_broken_on_their_way_to_a_remote(
    tmp_path: Path, whole_max: int, line_max: int, filed: bool
) -> None:
    """RFC 5321 §4.5.3.1.6. A chunk that is announced has the octets that follow."""
    for keywords in ("PIPELINING 8BITMIME", "PIPELINING 8BITMIME CHUNKING SIZE"):
        options = DeliverOptions(whole_max=whole_max, piece_size=700, bdat_size_min=0, line_max=line_max)
        stage = Stage(keywords, options=options)
        carried = stage.carry(job(file(tmp_path, LONG) if filed else LONG, long_lines=True))
        by_bdat = "CHUNKING" in keywords and not (line_max and filed)
        stage.server("250 ok", "250 ok", "" if by_bdat else "354 go")
        taken = carried + stage.wire.taken()
        expected = BROKEN if line_max else LONG.replace(b"\r\n.y", b"\r\n..y") + b".\r\n"
        if by_bdat:
            expected = expected.replace(b"\r\n..y\r\n.\r\n", b"\r\n.y\r\n")
            assert taken.endswith(b"BDAT %d LAST\r\n%b" % (len(expected), expected))
            assert b" SIZE=%d" % len(expected) in carried
        else:
            assert taken.endswith(b"DATA\r\n" + expected)


@pytest.mark.parametrize("whole_max", [1_000_000, 10])
@pytest.mark.parametrize("filed", [False, True])
@pytest.mark.parametrize("keywords", ["PIPELINING", "PIPELINING CHUNKING SIZE"])
def test_long_lines_of_8_bit_mail_are_converted(tmp_path: Path, whole_max: int, filed: bool, keywords: str) -> None:
    """RFC 6152 §3. Content in memory that was larger than `whole_max` went unconverted, found by the simulator."""
    content = b"Subject: x\r\n\r\n" + "ü".encode() * 2_000 + b"\r\n"
    options = DeliverOptions(whole_max=whole_max, piece_size=700, bdat_size_min=0)
    stage = Stage(keywords, options=options)
    made = job(file(tmp_path, content) if filed else content, long_lines=True, body=Body.EIGHT_BIT_MIME)
    carried = stage.carry(made)
    stage.server("250 ok", "250 ok", "354 go")  # converted content never goes by BDAT
    taken = carried + stage.wire.taken()
    assert taken.isascii() and max(map(len, taken.split(b"\r\n"))) <= 998
    body = taken.partition(b"\r\n\r\n")[2].removesuffix(b".\r\n")
    assert base64.b64decode(body) == "ü".encode() * 2_000 + b"\r\n"


def test_lines_go_as_they_are_by_lmtp_and_in_binary_mail() -> None:
    stage = Stage("PIPELINING 8BITMIME", kind=Transport.LMTP, security=Security(final=True))
    stage.carry(job(LONG, long_lines=True))
    stage.server("250 ok", "250 ok", "354 go")
    assert b"x" * 2_000 in stage.wire.taken()
    stage = Stage("PIPELINING 8BITMIME CHUNKING BINARYMIME")
    carried = stage.carry(job(LONG, long_lines=True, body=Body.BINARY_MIME))
    stage.server("250 ok", "250 ok")
    assert b"x" * 2_000 in carried + stage.wire.taken()


def test_content_that_cannot_be_read_defers(tmp_path: Path) -> None:
    content = ContentFile(str(tmp_path / "gone"), 5000)
    stage = Stage(options=DeliverOptions(whole_max=10))
    stage.carry(job(content))
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.outcomes() == [("deferred", "message", "4.3.0")]
    assert stage.wire.taken() == b""
    stage = Stage("PIPELINING")
    assert stage.carry(job(content, body=Body.EIGHT_BIT_MIME)) == b""
    assert stage.outcomes() == [("deferred", "message", "4.3.0")]


def test_a_file_shorter_than_it_should_be_defers(tmp_path: Path) -> None:
    content = ContentFile(file(tmp_path, b"x" * 100).path, 5000)
    stage = Stage(options=DeliverOptions(whole_max=10, piece_size=50))
    stage.carry(job(content))
    stage.server("250 ok", "250 ok", "354 go")
    assert not stage.wire.taken().endswith(b".\r\n")
    assert stage.outcomes() == [("deferred", "message", "4.3.0")]


EIGHT_BIT = b"Subject: x\r\n\r\n" + "Grüße an alle, ".encode() * 40 + b"\r\n"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("declared", [Body.EIGHT_BIT_MIME, Body.SEVEN_BIT])
def test_eight_bit_mail_is_converted_where_8bitmime_is_missing(tmp_path: Path, large: bool, declared: Body) -> None:
    """RFC 6152 §3: the remote is sent 7 bit that decodes to the same, and the attempt says so."""
    stage = Stage("PIPELINING SIZE CHUNKING", options=DeliverOptions(whole_max=10, piece_size=100, bdat_size_min=100))
    content = file(tmp_path, EIGHT_BIT) if large else EIGHT_BIT
    mail = stage.carry(job(content, body=declared))
    stage.server("250 ok", "250 ok", "354 go")
    sent = stage.wire.taken()
    assert sent.isascii() and sent.endswith(b"\r\n.\r\n")
    assert mail.startswith(b"MAIL FROM:<ada@example.org> SIZE=%d\r\n" % (len(sent) - 3))
    assert email.message_from_bytes(sent[:-3]).get_payload(decode=True) == EIGHT_BIT.partition(b"\r\n\r\n")[2]
    stage.server("250 2.0.0 ok")
    assert stage.done[0][0].text == "converted to 7 bit"
    stage.carry(job())
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == b"Subject: x\r\n\r\nhello\r\n.\r\n"
    stage.server("250 2.0.0 ok")
    assert stage.done[1][0].text == "", "what is said of one message says nothing of the next"


def test_a_large_file_that_is_ascii_goes_as_it_is(tmp_path: Path) -> None:
    stage = Stage("PIPELINING", options=DeliverOptions(whole_max=10))
    assert stage.carry(job(file(tmp_path, b"a" * 100), body=Body.EIGHT_BIT_MIME)).startswith(b"MAIL")


def test_eight_bit_mail_is_returned_or_sent_where_that_is_set() -> None:
    stage = Stage("PIPELINING", options=DeliverOptions(eight_bit=EightBit.RETURN))
    assert stage.carry(job(EIGHT_BIT)) == b""
    assert stage.outcomes() == [("failed", "message", "5.6.3")]
    stage = Stage("PIPELINING", options=DeliverOptions(eight_bit=EightBit.SEND))
    stage.carry(job(EIGHT_BIT))
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == EIGHT_BIT + b".\r\n"


def test_the_size_after_conversion_counts() -> None:
    """RFC 1870 §6.3"""
    stage = Stage(f"PIPELINING SIZE:{len(EIGHT_BIT) + 10}")
    assert stage.carry(job(EIGHT_BIT)) == b""
    assert stage.outcomes() == [("failed", "message", "5.3.4")]


def test_a_file_that_cannot_be_read_is_not_converted(tmp_path: Path) -> None:
    stage = Stage("PIPELINING")
    assert stage.carry(job(ContentFile(str(tmp_path / "gone"), 100))) == b""
    assert stage.outcomes() == [("deferred", "message", "4.3.0")]


# -- the connection ends


WORDS = ["250 ok", "250 ok", "354 go"]


@pytest.mark.parametrize("said", [0, 1, 2, 3])
@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "Connection reset by peer")])
def test_a_lost_connection(said: int, error: Exception | None) -> None:
    """Before the end of data it says nothing of the message; behind it the remote may have it."""
    stage = Stage()
    stage.carry(job())
    if said:
        stage.server(*WORDS[:said])
    stage.courier.connection_lost(error)
    stage.loop.advance(10_000)
    assert stage.outcomes() == [("deferred", "message" if said == 3 else "session", "4.4.2")]
    assert not stage.courier.usable
    assert stage.lost == []  # the queue learns it from `done`
    text = stage.done[0][0].text
    assert ("closed the connection" if error is None else "connection reset") in text


def test_421_ends_the_session() -> None:
    stage = Stage()
    stage.carry(job())
    stage.server("250 ok", "421 4.3.2 shutting down")
    assert stage.outcomes() == [("deferred", "session", "4.3.2")]
    assert stage.wire.aborted
    assert not stage.courier.usable
    stage.courier.connection_lost(None)
    assert stage.lost == []


def test_421_behind_the_250_ends_the_session_not_the_message() -> None:
    stage = Stage()
    stage.carry(job())
    stage.server(*WORDS)
    stage.server("250 ok", "421 enough for today")
    assert stage.outcomes() == [RELAYED]
    assert not stage.courier.usable


def test_an_idle_courier_that_is_closed_is_lost_once() -> None:
    for end in (lambda stage: stage.courier.connection_lost(None), lambda stage: stage.server("421 idle for too long"),
                lambda stage: stage.server("250 what?")):
        stage = Stage()
        end(stage)
        assert stage.lost == [stage.courier]
        assert not stage.courier.usable
        stage.courier.close()
        stage.courier.connection_lost(None)
        stage.loop.advance(1000)
        assert stage.lost == [stage.courier]


def test_carry_on_a_dead_courier_defers_with_the_reach_of_the_session() -> None:
    stage = Stage()
    stage.courier.connection_lost(None)
    stage.carry(job(to=2))
    assert stage.outcomes() == [("deferred", "session", "4.4.2")] * 2


def test_nothing_is_written_after_the_end() -> None:
    stage = Stage(options=DeliverOptions(whole_max=10, piece_size=10))
    stage.carry(job(b"x" * 100))
    stage.courier.data_received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    stage.courier.data_received(b"421 no\r\n")  # a piece is being read just now
    written = list(stage.wire.writes)
    stage.loop.run()
    assert stage.wire.writes == written
    assert stage.outcomes() == [("deferred", "session", "4.3.2")]


# -- time


@pytest.mark.parametrize(
    ("words", "limit_s", "reach", "text"),
    [
        ([], 300, "session", "no answer to MAIL within 300 s"),
        (["250 ok"], 300, "session", "no answer to RCPT within 300 s"),
        (["250 ok", "250 ok"], 120, "session", "no answer to DATA within 120 s"),
        (["250 ok", "250 ok", "354 go"], 600, "message", "no answer to the end of data within 600 s"),
    ],
)
def test_each_step_has_its_limit(words: list[str], limit_s: float, reach: str, text: str) -> None:
    """RFC 5321 §4.5.3.2"""
    stage = Stage()
    stage.carry(job())
    for word in words:
        stage.loop.advance(60)
        stage.server(word)
    stage.loop.advance(limit_s - 1)
    assert not stage.done
    stage.loop.advance(2)
    assert stage.outcomes() == [("deferred", reach, "4.4.2")]
    assert text in stage.done[0][0].text
    assert stage.wire.aborted


def test_an_octet_now_and_then_is_no_answer() -> None:
    stage = Stage()
    stage.carry(job())
    for octet in b"250 " + b"x" * 400:
        if stage.done:
            break
        stage.courier.data_received(bytes((octet,)))
        stage.loop.advance(1)
    assert stage.outcomes() == [("deferred", "session", "4.4.2")]


def test_a_transaction_is_bounded_as_a_whole() -> None:
    stage = Stage("SIZE", options=DeliverOptions(transaction_s=1000))
    stage.carry(job(to=100))
    for _ in range(100):
        if stage.done:
            break
        stage.loop.advance(100)
        if not stage.done:
            stage.server("250 ok")
    assert len(stage.done) == 1
    assert stage.loop.now < 1000 + 1000 + 101


def test_content_is_looked_through_for_stray_line_ends_unless_that_was_seen() -> None:
    for seen, codes in ((False, ["5.6.1"]), (True, ["2.0.0"])):
        stage = Stage()
        stage.carry(msgspec.structs.replace(job(b"Subject: x\r\n\r\na\nb\r\n"), only_crlf=seen))
        if seen:
            stage.server(*WORDS)
            stage.server("250 ok")
        stage.loop.run()
        assert [status for _, _, status in stage.outcomes()] == codes


def test_sender_and_recipients_are_said_as_the_job_names_them() -> None:
    stage = Stage("PIPELINING DSN")
    to = (Recipient(Address("r0", "example.net")), Recipient(Address("r1", "example.net"), orcpt="rfc822;first@a.test"))
    names = (Address("x0", "other.example"), Address("r1", "example.net"))
    given = msgspec.structs.replace(job(to=to), reverse_path=Address("robot", "example.com"), forward_paths=names)
    said = stage.carry(given).decode().split("\r\n")
    assert said[0].startswith("MAIL FROM:<robot@example.com>")
    # RFC 3461 §5.2.1 (d): an ORCPT of ours names the recipient as it came to us.
    assert said[1] == "RCPT TO:<x0@other.example> ORCPT=rfc822;r0@example.net"
    assert said[2] == "RCPT TO:<r1@example.net> ORCPT=rfc822;first@a.test"
    stage.server("250 ok", "250 ok", "550 5.1.1 no", "354 go")
    stage.server("250 ok")
    [attempts] = stage.done
    assert attempts[0].text == "sent from <robot@example.com> to <x0@other.example>"
    assert attempts[1].text.endswith("; sent from <robot@example.com> to <r1@example.net>")


@pytest.mark.parametrize(
    "late", ["550 5.7.1 not with us, said late", "556 5.1.10 late", "451 4.3.0 late", "250 2.0.0 late"]
)
def test_a_late_reply_while_content_is_looked_through_decides_nothing(late: str) -> None:
    """Nothing of the second message was said yet: a refusal is about the first one, or about the session."""
    stage = Stage("PIPELINING")
    stage.carry(job())
    stage.server("250 ok", "250 ok", "354 go")
    stage.server("250 taken")
    second = job(EIGHT_BIT, body=Body.EIGHT_BIT_MIME)
    stage.courier.carry(second, lambda job, attempts: stage.done.append(attempts))
    stage.server(late)
    (attempt,) = stage.done[1]
    assert (attempt.outcome, attempt.reach) == (Outcome.DEFERRED, Reach.SESSION)
    assert late in attempt.text


@pytest.mark.parametrize(
    ("said", "outcome"), [("554 5.7.1 go away", Outcome.DEFERRED), ("521 5.3.2 no mail here", Outcome.FAILED)]
)
def test_a_session_that_is_refused_before_mail_fails_the_message_only_if_the_host_takes_none(
    said: str, outcome: Outcome
) -> None:
    """On a new connection, as if it had been said for a greeting (RFC 7504 §3)."""
    stage = Stage("PIPELINING")
    stage.courier.carry(job(EIGHT_BIT, body=Body.EIGHT_BIT_MIME), lambda job, attempts: stage.done.append(attempts))
    stage.server(said)
    (attempt,) = stage.done[0]
    assert (attempt.outcome, attempt.reach) == (outcome, Reach.HOP)
    assert attempt.status.startswith("5" if outcome is Outcome.FAILED else "4") and said in str(attempt.reply)


def test_a_remote_that_offers_dsn_and_refuses_its_parameters_hears_none() -> None:
    """RFC 3461 §5.2.2: such a host is one without DSN, and the reports are ours to make."""
    stage = Stage("PIPELINING DSN")
    refusals: list[str] = []
    stage.courier.set_out(elsewhere=False, failed=lambda: None, broken=refusals.append)
    to = tuple(
        Recipient(Address(local_part, "example.net"), notify, "rfc822;o@a.test" if notify else "")
        for local_part, notify in (("r0", Notify.SUCCESS), ("a NOTIFY=x", Notify.FAILURE), ("r2", Notify.UNSET))
    )
    said = stage.carry(job(to=to, ret=Ret.FULL, envid="a>b"))
    assert b" RET=FULL ENVID=a>b" in said and said.count(b" NOTIFY=") == 3
    stage.server("250 ok", "250 ok", "555 5.5.4 unsupported", "550 5.1.1 no", "354 go")
    stage.server("250 ok")
    assert stage.wire.taken().endswith(
        b'.\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<"a NOTIFY=x"@example.net>\r\nDATA\r\n'
    )
    stage.server("250 ok", "250 ok", "354 go")
    stage.server("250 ok")
    assert stage.outcomes() == [
        ("relayed", "recipient", "2.0.0"), ("relayed", "recipient", "2.0.0"), ("failed", "recipient", "5.1.1"),
    ]
    assert [attempt.dsn_passed for attempt in stage.done[0]] == [True, False, True]
    assert refusals == ["DSN"]
    # The session is one without DSN from here on, and a second refusal is final.
    assert b"NOTIFY" not in stage.carry(job(to=to[:1], ret=Ret.FULL))
    stage.server("250 ok", "555 5.5.4 unsupported", "503 no")
    assert [attempt.status for attempt in stage.done[1]] == ["5.5.4"] and refusals == ["DSN"]


def test_a_remote_that_refuses_mail_with_parameters_of_dsn_hears_none() -> None:
    stage = Stage("DSN")
    assert b" ENVID=x" in stage.carry(job(envid="x"))
    stage.server("555 5.5.4 unsupported")
    assert stage.wire.taken().endswith(b"MAIL FROM:<ada@example.org>\r\n")
    stage.server("250 ok")
    stage.server("250 ok")
    stage.server("354 go")
    stage.server("250 ok")
    assert stage.outcomes() == [("relayed", "recipient", "2.0.0")]


def test_a_block_that_is_not_taken() -> None:
    stage = Stage(pause_above=10)
    stage.carry(job())
    stage.courier.data_received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    stage.loop.advance(179)
    assert not stage.done
    stage.loop.advance(2)
    assert stage.outcomes()[0][0] == "deferred"
    assert "took no data for 180 s" in stage.done[0][0].text


def test_an_idle_courier_says_quit_and_is_lost() -> None:
    stage = Stage()
    stage.loop.advance(29)
    assert stage.courier.usable
    stage.loop.advance(2)
    assert stage.lost == [stage.courier]
    assert not stage.courier.usable
    assert stage.wire.taken() == b"QUIT\r\n"
    stage.server("221 bye")
    assert stage.wire.closed
    stage.courier.connection_lost(None)
    stage.loop.advance(1000)
    assert stage.lost == [stage.courier]
    assert not [handle for _, _, handle in stage.loop.timers if not handle.cancelled]


def test_a_connection_that_is_kept_for_no_time_ends_with_its_job_and_sets_few_timers() -> None:
    stage = Stage(options=DeliverOptions(idle_s=0))
    stage.carry(job())
    stage.loop.advance(200)
    armed = stage.loop.armed
    assert armed < 10
    stage.server(*WORDS)
    stage.server("250 ok")
    assert len(stage.done) == 1
    stage.wire.taken()
    stage.loop.advance(0)
    assert stage.lost == [stage.courier] and stage.wire.taken() == b"QUIT\r\n"
    assert stage.loop.armed < armed + 10


def test_a_quit_that_is_not_answered() -> None:
    stage = Stage()
    stage.courier.close()
    assert stage.wire.taken() == b"QUIT\r\n"
    stage.loop.advance(4)
    assert not stage.wire.aborted
    stage.loop.advance(2)
    assert stage.wire.aborted
    stage.courier.connection_lost(None)
    assert stage.lost == []


def test_close_ends_the_job_first() -> None:
    stage = Stage()
    stage.carry(job())
    stage.courier.close()
    stage.courier.close()
    stage.server(*WORDS)
    assert stage.wire.taken() == CONTENT
    stage.server("250 ok")
    assert stage.outcomes() == [RELAYED]
    assert stage.wire.taken() == b"QUIT\r\n"
    assert not stage.courier.usable


def test_messages_and_age_of_a_connection() -> None:
    stage = Stage(options=DeliverOptions(messages_max=2))
    for usable in (True, False):
        stage.carry(job())
        stage.server(*WORDS)
        stage.server("250 ok")
        assert stage.courier.usable is usable
    stage = Stage(options=DeliverOptions(age_s=10))
    stage.loop.advance(11)
    assert not stage.courier.usable
