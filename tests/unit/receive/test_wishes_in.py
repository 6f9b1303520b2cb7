"""What clients ask for at MAIL, at RCPT and in header fields: granted, lowered, refused, read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postroad.check.policy import Directory, PolicyOptions, rules
from postroad.mail.event import Noted
from postroad.mail.owned import Owned
from postroad.mail.policy import Role
from postroad.protocol.limits import ProtocolLimits
from postroad.receive.options import ExtensionOptions, ListenerOptions, ReceiveOptions
from postroad.receive.setup import listener_setup
from postroad.receive.wishes_in import mail_date_us
from tests.unit.receive.fakes import KNOWN, NOW_US, Client, House, opened
from tests.unit.receive.test_session import MESSAGE, content

TO = "RCPT TO:<ann@local.test>"
_TRUST_NETWORK = PolicyOptions(trust_network=True)


def house(
    role: Role = Role.MX, trusted: tuple[str, ...] = (), bounds: ProtocolLimits | None = None, **extensions: Any
) -> House:
    options = ReceiveOptions(
        hostname="mx.local.test", default_domain="local.test", extensions=ExtensionOptions(**extensions),
        limits=bounds or ProtocolLimits(),
    )
    listener = ListenerOptions("front", role, trusted_networks=trusted, dsn_for_strangers=True)
    return House(options=options, listener=listener)


def submission(**extensions: Any) -> House:
    made = house(Role.SUBMISSION, ("192.0.2.0/24",), **extensions)
    made.listener.setup = listener_setup(
        made.listener_options, made.options,
        rules(Role.SUBMISSION, _TRUST_NETWORK, KNOWN, lmtp=False), made.doors,
    )
    return made


def send(client: Client, mail: str = "", rcpt: str = TO, octets: bytes = MESSAGE) -> list[str]:
    answers = client.codes(f"MAIL FROM:<ann@local.test>{mail}", rcpt, "DATA")
    if answers[-1].startswith("354"):
        answers[-1] = client.say(octets + b".\r\n")[:9]
    return answers


def parameters(house: House) -> dict[str, str]:
    return dict(house.spool.stored[-1].envelope.parameters)


# ---- what is offered


def test_what_is_offered() -> None:
    lines = opened(house()).say("EHLO c.test\r\n").split("\n")
    told = {line[4:].split(" ")[0]: line[4:] for line in lines}
    assert told["LIMITS"] == "LIMITS RCPTMAX=1000"
    assert {"DELIVERBY", "MT-PRIORITY", "RRVS"} <= set(told)
    assert not {"BINARYMIME", "REQUIRETLS", "FUTURERELEASE"} & set(told)  # off; TLS only; submission only
    lines = opened(house(Role.SUBMISSION, binarymime=True, deliver_by_min_s=60, mt_priority_profile="MIXER")).say(
        "EHLO c.test\r\n"
    ).split("\n")
    told = {line[4:].split(" ")[0]: line[4:] for line in lines}
    assert told["FUTURERELEASE"] == "FUTURERELEASE 604800 2026-11-25T11:00:00Z"  # a week from NOW_US, to the hour
    assert (told["DELIVERBY"], told["MT-PRIORITY"]) == ("DELIVERBY 60", "MT-PRIORITY MIXER")
    assert "BINARYMIME" in told
    off = dict.fromkeys(("limits", "requiretls", "deliver_by", "mt_priority", "rrvs"), False)
    lines = opened(house(future_release_max_s=0, **off)).say("EHLO c.test\r\n").split("\n")
    assert not {"LIMITS", "DELIVERBY", "MT-PRIORITY", "RRVS"} & {line[4:].split(" ")[0] for line in lines}


def test_limits_are_announced_as_they_are_in_force() -> None:
    limits = ProtocolLimits(recipients_max=100, transactions_max=2, recipient_domains_max=1)
    offended: list[str] = []
    made = house(bounds=limits)
    object.__setattr__(made.doors.limiting, "offended", offended.append)
    client = opened(made)
    assert "250-LIMITS MAILMAX=2 RCPTMAX=100 RCPTDOMAINMAX=1" in client.say("EHLO c.test\r\n")
    assert client.codes(
        "MAIL FROM:<a@b.test>", TO, "RCPT TO:<bob@local.test>", "RCPT TO:<x@relay.test>", "RSET",
        "MAIL FROM:<a@b.test>", "RCPT TO:<x@relay.test>", TO, "RSET",
    ) == [
        "250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3", "250 2.0.0",
        "250 2.1.0", "452 4.5.3", "250 2.1.5", "250 2.0.0",
    ]  # fmt: skip
    assert client.codes("MAIL FROM:<a@b.test>") == ["421 4.7.0"]
    assert client.transport.closed and not offended  # it had its share: no step towards a ban


# ---- MAIL


@pytest.mark.parametrize(
    ("mail", "answer"),
    [
        (" BY=60;R", "250 2.1.0"),
        (" BY=59;R", "555 5.5.4"),
        (" BY=59;N", "250 2.1.0"),
        (" BY=-5;N", "250 2.1.0"),
        (" BY=0;R", "501 5.5.4"),
        (" HOLDFOR=3600", "250 2.1.0"),
        (" HOLDFOR=3601", "501 5.5.4"),
        (" HOLDUNTIL=2026-11-18T12:06:40Z", "250 2.1.0"),
        (" HOLDUNTIL=2026-11-18T12:06:41Z", "501 5.5.4"),
        (" HOLDUNTIL=2020-01-01T00:00:00Z", "250 2.1.0"),
        (" HOLDUNTIL=2026-11-31T00:00:00Z", "501 5.5.4"),
        (" HOLDFOR=60 HOLDUNTIL=2026-11-18T12:00:00Z", "501 5.5.4"),
        (" HOLDFOR=60 BY=61;N", "250 2.1.0"),
        (" HOLDFOR=60 BY=60;R", "501 5.5.4"),  # wanted there before it is released
        (" REQUIRETLS", "555 5.5.4"),  # no TLS here
    ],
)
def test_times_at_mail(mail: str, answer: str) -> None:
    client = opened(submission(deliver_by_min_s=60, future_release_max_s=3600))
    assert client.codes(f"MAIL FROM:<ann@local.test>{mail}") == [answer]


def test_future_release_is_for_submission_only() -> None:
    assert opened(house()).codes("MAIL FROM:<a@b.test> HOLDFOR=60") == ["555 5.5.4"]


def test_what_is_to_be_released_later_waits() -> None:
    made = submission()
    assert send(opened(made), " HOLDFOR=60")[-1] == "250 2.0.0"
    assert made.queued == []
    ((number, rows),) = made.awaited
    assert number == made.spool.stored[0].envelope.id and made.spool.waiting == [rows]
    assert [(row.index, row.due_us, row.held) for row in rows] == [(0, NOW_US + 60_000_000, False)]
    assert rows[0].text == "to be released at 2026-11-18T11:07:40Z, as the client asked"
    assert any(isinstance(event, Noted) and event.text == rows[0].text for event in made.spool.events)
    assert send(opened(made), " HOLDUNTIL=2020-01-01T00:00:00Z")[-1] == "250 2.0.0"  # past: at once
    assert len(made.queued) == 1


@pytest.mark.parametrize(
    ("trusted", "asked", "answer", "kept"),
    [
        (True, "5", "250 2.1.0", "5"),
        (True, "9", "250 2.3.6 6 is the new priority assigned to the message", "6"),
        (False, "5", "250 2.3.6 0 is the new priority assigned to the message", "0"),
        (False, "-5", "250 2.1.0", "-5"),
        (False, "0", "250 2.1.0", "0"),
    ],
)
def test_priorities_are_lowered(trusted: bool, asked: str, answer: str, kept: str) -> None:
    """RFC 6710: 2.3.6, and the text begins with what was assigned."""
    made = house(trusted=("192.0.2.0/24",) if trusted else (), mt_priority_max=6)
    client = opened(made)
    assert client.say(f"MAIL FROM:<a@b.test> MT-PRIORITY={asked}\r\n").startswith(answer)
    client.codes(TO, "DATA")
    client.say(MESSAGE + b".\r\n")
    assert parameters(made) == {"MT-PRIORITY": kept}
    assert (b"\r\n\tPRIORITY " + kept.encode() in content(made)) is (kept != "0")


def test_the_time_that_the_content_took_counts() -> None:
    made = house()
    clock = [NOW_US]
    object.__setattr__(made.doors, "now_us", lambda: clock[0])
    client = opened(made)
    client.codes("MAIL FROM:<a@b.test> BY=120;R", TO, "DATA")
    clock[0] += 20_000_000
    client.say(MESSAGE + b".\r\n")
    assert parameters(made) == {"BY": "100;R"}


# ---- header fields


@pytest.mark.parametrize(
    ("head", "mail", "kept"),
    [
        (b"TLS-Required: No\r\n", "", {"TLS-REQUIRED": "NO"}),
        (b"tls-required:no\r\n", "", {"TLS-REQUIRED": "NO"}),
        (b"TLS-Required: Yes\r\n", "", {}),
        (b"TLS-Required: No\r\nTLS-Required: No\r\n", "", {}),  # RFC 8689 §3: one only
        (b"Subject: TLS-Required: No\r\n", "", {}),
        (b"TLS-Required: No\r\n", " BY=60;N", {"BY": "60;N", "TLS-REQUIRED": "NO"}),
    ],
)
def test_tls_required_no(head: bytes, mail: str, kept: dict[str, str]) -> None:
    made = house()
    assert send(opened(made), mail, octets=head + MESSAGE)[-1] == "250 2.0.0"
    assert parameters(made) == kept
    assert content(made).endswith(head + MESSAGE)


def test_header_fields_are_not_read_where_that_is_off() -> None:
    made = house(requiretls=False, rrvs=False)
    assert not made.listener.setup.reads_header
    send(opened(made), octets=b"TLS-Required: No\r\n" + MESSAGE)
    assert parameters(made) == {}


def test_valid_since_in_a_header_field() -> None:
    """RFC 7293 §3.2, with its example's form; what RCPT says is stronger."""
    made = house()
    client = opened(made)
    client.codes("MAIL FROM:<a@b.test>", TO, "RCPT TO:<bob@local.test> RRVS=2010-01-01T00:00:00Z", "DATA")
    fields = b"".join(
        b"Require-Recipient-Valid-Since: %b@local.test;\r\n Sat, 1 Jun 2013 09:23:01 -0700\r\n" % name
        for name in (b"ANN", b"bob", b"eve")
    )
    client.say(fields + b"Require-Recipient-Valid-Since: nonsense\r\n" + MESSAGE + b".\r\n")
    assert [each.parameters for each in made.spool.stored[0].envelope.recipients] == [
        (("RRVS", "2013-06-01T16:23:01Z;H"),), (("RRVS", "2010-01-01T00:00:00Z"),),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("trusted", "mail", "kept"),
    [(True, "", {"MT-PRIORITY": "4"}), (True, " MT-PRIORITY=2", {"MT-PRIORITY": "2"}), (False, "", {})],
)
def test_a_tunnelled_priority_is_believed_of_the_trusted_and_never_goes_on(
    trusted: bool, mail: str, kept: dict[str, str]
) -> None:
    """RFC 6758"""
    made = house(trusted=("192.0.2.0/24",) if trusted else (), mt_priority_tunnel=True, mt_priority_max=4)
    send(opened(made), mail, octets=b"X: 1\r\nMT-Priority: 7\r\n" + MESSAGE)
    assert parameters(made) == kept
    assert b"MT-Priority" not in content(made) and content(made).endswith(b"\r\nX: 1\r\n" + MESSAGE)
    made = house(mt_priority_tunnel=True)
    send(opened(made), octets=b"Subject: MT-Priority: 7\r\n\r\nx\r\n")
    assert content(made).endswith(b"\r\nSubject: MT-Priority: 7\r\n\r\nx\r\n")
    made = house()  # not tunnelled: left alone
    send(opened(made), octets=b"MT-Priority: 7\r\n" + MESSAGE)
    assert content(made).endswith(b"\r\nMT-Priority: 7\r\n" + MESSAGE)


def test_the_header_section_of_large_content_is_read_as_well() -> None:
    """It goes to a file as it arrives; what must not go on is gone before that."""
    made = house(mt_priority_tunnel=True, bounds=ProtocolLimits(piece_size=4096))
    made.options = msgspec.structs.replace(made.options, memory_content_max=1_000)
    made.listener.setup = listener_setup(made.listener_options, made.options, made.rules, made.doors)
    head = b"TLS-Required: No\r\nMT-Priority: 7\r\nmt-priority \t: 8\r\n 9\r\n"
    send(opened(made), octets=head + MESSAGE + (b"y" * 70 + b"\r\n") * 2_000)
    assert parameters(made) == {"TLS-REQUIRED": "NO"}
    stored = made.spool.message()
    assert b"\r\nTLS-Required: No\r\nSubject" in stored and b"mt-priority" not in stored.lower()


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("Sat, 1 Jun 2013 09:23:01 -0700", 1_370_103_781_000_000),
        ("1 Jun 2013 16:23 GMT", 1_370_103_780_000_000),
        ("Sat, 1 Jun 2013 18:23:01 +0200 (CEST)", 1_370_103_781_000_000),
        ("Sat, 31 Feb 2013 09:23:01 -0700", None),
        ("Sat, 1 Foo 2013 09:23:01 -0700", None),
        ("yesterday", None),
        # what no year of four digits can tell of in UTC
        ("1 Jan 0001 00:00:00 +9959", None),
        ("31 Dec 9999 23:59:59 -9959", None),
        ("1 Jan 0999 00:00:00 +0000", None),
    ],
)
def test_mail_dates(text: str, at_us: int | None) -> None:
    assert mail_date_us(text) == at_us


# ---- RCPT


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("2014-06-01T00:00:00Z", "250 2.1.5"),
        ("2013-06-01T00:00:00Z", "550 5.7.17"),
        ("2013-06-01T00:00:00Z;C", "550 5.7.17"),
        ("2009-06-01T00:00:00Z", "550 5.7.18"),
        ("2009-13-01T00:00:00Z", "501 5.5.4"),
    ],
)
def test_a_mailbox_that_has_another_owner_now(asked: str, answer: str) -> None:
    """RFC 7293: the mailbox is somebody's since 2014, the domain since 2010."""
    owned = Owned(1_388_534_400_000_000, 1_262_304_000_000_000)
    known = Directory(KNOWN.is_local, KNOWN.is_relay, KNOWN.recipient, KNOWN.owns, lambda address: owned)
    made = house()
    made.listener.setup = listener_setup(
        made.listener_options, made.options, rules(Role.MX, _TRUST_NETWORK, known, lmtp=False), made.doors
    )
    client = opened(made)
    assert client.codes("MAIL FROM:<a@b.test>", f"{TO} RRVS={asked}", TO)[1:] == [answer, "250 2.1.5"]
