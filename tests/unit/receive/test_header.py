"""What becomes of content whose first line is no field, of stray line ends, of addresses that break the grammar: over
the dialog, for each role."""

from __future__ import annotations

import msgspec
import pytest

from postroad.check.policy import PolicyOptions
from postroad.mail import message
from postroad.mail.event import Accepted
from postroad.mail.policy import Role
from postroad.protocol.limits import ProtocolLimits, StrayLineEnds
from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions, ReceiveOptions
from tests.unit.receive.fakes import Client, House
from tests.unit.receive.test_session import content

OPTIONS = ReceiveOptions(hostname="mx.local.test", default_domain="local.test")
TRUSTING = PolicyOptions(trust_network=True)
ROLES = [(role, Dialect.SMTP) for role in Role] + [(Role.MX, Dialect.LMTP)]


def house(role: Role, dialect: Dialect = Dialect.SMTP, *, trusted: bool = True, **changes: object) -> House:
    listener = ListenerOptions(
        "front", role, dialect, trusted_networks=("192.0.2.0/24",) if trusted else (), loose_paths=role is not Role.MX
    )
    return House(
        options=OPTIONS, listener=msgspec.structs.replace(listener, **changes),
        policy_options=TRUSTING,
    )  # fmt: skip


def begun(where: House, sender: str = "MAIL FROM:<ann@local.test>") -> Client:
    client = where.client()
    lmtp = where.listener_options.protocol is Dialect.LMTP
    client.say("LHLO c.test\r\n" if lmtp else "EHLO c.test\r\n")
    assert client.codes(sender, "RCPT TO:<bob@local.test>", "DATA")[1:] == ["250 2.1.5", "354 Send"]
    return client


@pytest.mark.parametrize(("role", "dialect"), ROLES)
@pytest.mark.parametrize(
    "octets",
    [
        b" by mx.example.com with ESMTPS id 12345; Mon, 1 Jan 2001 00:00:00 +0000\r\nSubject: x\r\n\r\nx\r\n",
        b"\tfor <eve@example.net>\r\n\r\nx\r\n",
        b"From ada Mon Jan  1 00:00:00 2026\r\n by mx.example.com\r\nFrom: ada@example.test\r\n\r\nx\r\n",
        b"no field at all\r\nX: y\r\n",
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_nothing_goes_on_with_our_received_field(role: Role, dialect: Dialect, octets: bytes, large: bool) -> None:
    where = house(role, dialect)
    if large:
        where = House(
            options=msgspec.structs.replace(OPTIONS, memory_content_max=0), listener=where.listener_options
        ) if role is not Role.SUBMISSION else where
    begun(where).say(octets + (b"x" * 70 + b"\r\n") * (5_000 if large else 0) + b".\r\n")
    stored = where.spool.message()
    fields = list(message.fields(stored))
    assert fields[0].name == "Received" and fields[0].text.endswith("+0000") and b"example" not in fields[0].value
    ours = {"Received", "Date", "Message-ID", "From", "X-Mailbox-Line"}
    assert {field.name for field in fields} <= ours
    body = octets.partition(b"\r\n")[2] if octets.startswith(b"From ") else octets
    assert stored[message.header_end(stored) :].startswith(b"\r\n" + body)


@pytest.mark.parametrize("quoted", [b"", b">"])
@pytest.mark.parametrize("role", list(Role))
def test_a_line_of_an_mbox_file_on_top(role: Role, quoted: bytes) -> None:
    line = quoted + b"From ada Mon Jan  1 00:00:00 2026"
    where = house(role)
    begun(where).say(line + b"\r\nFrom: Ada <ada@example.test>\r\nSubject: x\r\n\r\nx\r\n.\r\n")
    stored = content(where)
    section = stored[: message.header_end(stored)]
    assert message.first(section, b"x-mailbox-line") == line.decode()
    assert message.first(section, b"from") == "Ada <ada@example.test>"
    assert stored[len(section) :] == b"\r\nx\r\n"
    assert (message.first(section, b"date") is not None) == (role is Role.SUBMISSION)


def test_from_with_white_space_before_the_colon_is_seen() -> None:
    """RFC 5322 §4.5. A second From stood beside it."""
    where = house(Role.SUBMISSION)
    begun(where).say(b"From : Eve <eve@example.net>\r\nSubject: x\r\n\r\nx\r\n.\r\n")
    assert [field.text for field in message.fields(content(where)) if field.name == "From"] == [
        "Eve <eve@example.net>"
    ]


def test_received_with_white_space_before_the_colon_counts() -> None:
    where = house(Role.MX)
    answer = begun(where).say(b"Received : x\r\n" * 101 + b"\r\nx\r\n.\r\n")
    assert answer.startswith("554 5.4.6")


def test_a_header_section_of_many_pieces_is_mended_as_a_whole() -> None:
    """With little memory for content, what was mended was the first piece of the header section."""
    where = house(Role.SUBMISSION)
    where = House(
        options=msgspec.structs.replace(OPTIONS, memory_content_max=0, limits=ProtocolLimits(piece_size=4_096)),
        listener=where.listener_options, policy_options=TRUSTING,
    )  # fmt: skip
    filler = b"".join(b"X-%d: " % number + b"y" * 900 + b"\r\n" for number in range(150))
    header = filler + b"Date: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-ID: <a@b>\r\nFrom: ann@local.test\r\n"
    client = begun(where)
    for at in range(0, len(header), 1_460):
        client.say(header[at : at + 1_460])
    client.say(b"\r\n" + (b"x" * 70 + b"\r\n") * 100 + b".\r\n")
    octets = where.spool.message()
    names = [field.name.lower() for field in message.fields(octets)]
    assert (names.count("date"), names.count("message-id"), names.count("from")) == (1, 1, 1)


# ---- stray line ends


@pytest.mark.parametrize(("role", "dialect"), ROLES)
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("setting", list(StrayLineEnds))
def test_who_may_send_stray_line_ends(role: Role, dialect: Dialect, trusted: bool, setting: StrayLineEnds) -> None:
    if role is Role.SUBMISSION and not trusted:
        return  # has no mail at all
    where = house(role, dialect, trusted=trusted)
    where = House(
        options=msgspec.structs.replace(OPTIONS, limits=ProtocolLimits(stray_line_ends=setting)),
        listener=where.listener_options, policy_options=TRUSTING,
    )  # fmt: skip
    answer = begun(where).say(b"Subject: x\nFrom: ann@local.test\r\r\n\ntwo\r\r\nlines\r\n.\r\n")
    repaired = setting is StrayLineEnds.REPAIR or (setting is StrayLineEnds.KNOWN and trusted)
    assert answer.startswith("250 2.0.0" if repaired else "550 5.5.2"), answer
    if repaired:
        assert content(where).endswith(b"Subject: x\r\nFrom: ann@local.test\r\n\r\ntwo\r\nlines\r\n")


def test_repair_is_for_known_clients_by_default() -> None:
    assert ProtocolLimits().stray_line_ends is StrayLineEnds.KNOWN


# ---- addresses


def test_addresses_that_break_the_grammar_travel_on_in_quotes() -> None:
    where = house(Role.RELAY)
    client = where.client()
    client.say("EHLO B\u00fcro.example\r\n")
    assert client.codes(
        "MAIL FROM:<a..b@docomo.test>", "RCPT TO:.c@elsewhere.test", "DATA"
    ) == ["250 2.1.0", "250 2.1.5", "354 Send"]
    client.say(b"Subject: x\r\n\r\nx\r\n.\r\n")
    envelope = where.spool.stored[0].envelope
    assert str(envelope.reverse_path) == '"a..b"@docomo.test'
    assert str(envelope.recipients[0].address) == '".c"@elsewhere.test'
    assert envelope.peer.hello == "B\u00fcro.example"
    received = content(where).partition(b";")[0]
    assert received.startswith(b"Received: from xn--bro-hoa.example ([192.0.2.1])")
    assert b'for <".c"@elsewhere.test>' in received
    accepted = next(event for event in where.spool.events if isinstance(event, Accepted))
    assert (accepted.reverse_path, accepted.recipients) == ('"a..b"@docomo.test', ('".c"@elsewhere.test',))


@pytest.mark.parametrize(("role", "expected"), [(Role.MX, "501 5.1.7"), (Role.RELAY, "250 2.1.0")])
def test_where_addresses_may_break_the_grammar(role: Role, expected: str) -> None:
    client = house(role).client()
    client.say("EHLO c.test\r\n")
    assert client.codes("MAIL FROM:<a..b@docomo.test>") == [expected]
    loose = house(role, loose_paths=True).client()
    loose.say("EHLO c.test\r\n")
    assert loose.codes("MAIL FROM:<a..b@docomo.test>") == ["250 2.1.0"]


def test_paths_without_brackets_are_taken_everywhere() -> None:
    for role in Role:
        client = house(role).client()
        client.say("EHLO c.test\r\n")
        assert client.codes("MAIL FROM:ann@local.test", "RCPT TO:bob@local.test") == ["250 2.1.0", "250 2.1.5"]


# ---- Date and Message-ID on relay listeners


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_relay_listener_adds_date_and_message_id(trusted: bool, wanted: bool) -> None:
    where = house(Role.RELAY, trusted=trusted, add_missing=wanted)
    begun(where).say(b"From: cron@host.test\r\nDate: soon\r\n\r\nx\r\n.\r\n")
    stored = content(where)
    names = [field.name for field in message.fields(stored)]
    added = ["Message-ID"] if trusted and wanted else []
    assert names == ["Received", *added, "From", "Date"], "what is there stays as it is"
    where = house(Role.RELAY, trusted=trusted, add_missing=wanted)
    begun(where).say(b"From: cron@host.test\r\nDate:\r\nMessage-ID: x\r\n\r\nx\r\n.\r\n")
    section = content(where)[: message.header_end(content(where))]
    assert bool(message.first(section, b"date")) == (trusted and wanted)
    assert message.first(section, b"message-id") == "x" and message.count(section, b"message-id") == 1


# ---- Message-ID


def test_a_message_id_is_cut_for_envelope_log_and_history() -> None:
    where = house(Role.MX)
    begun(where).say(b"Message-ID: <" + b"x" * 5_000 + b"@a>\r\n\r\nx\r\n.\r\n")
    assert where.spool.stored[0].envelope.message_id == "<" + "x" * (message.MESSAGE_ID_MAX - 1)
    assert content(where).count(b"x" * 5_000) == 1


# ---- long lines


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("length", "long"), [(998, False), (999, True), (200_000, True)])
def test_the_envelope_tells_of_long_lines(large: bool, length: int, long: bool) -> None:
    where = house(Role.MX)
    if large:
        where = House(options=msgspec.structs.replace(OPTIONS, memory_content_max=0), listener=where.listener_options)
    client = begun(where)
    client.say(b"Subject: x\r\n\r\n" + b"y" * 998 + b"\r\n")
    client.say((b"x" * 70 + b"\r\n") * (3_000 if large else 1))
    client.say(b"z" * (length - 100))
    client.say(b"z" * 100 + b"\r\nend\r\n.\r\n")
    assert where.spool.stored[0].envelope.long_lines is long
