"""What log and history tell of a refusal is what the client heard: the same code, enhanced code and text."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from postroad.check.client import ClientOptions
from postroad.mail.event import Refused, SessionEnded
from postroad.mail.policy import Action, Question, Rules, Verdict, reject
from postroad.mail.reply import Reply
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.options import EarlyTalker, ListenerOptions, ListenerTls, ReceiveOptions
from postroad.report.line import human_line
from tests.unit.receive.fakes import House, opened

OPEN = "MAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<ann@local.test>\r\n"
LIMITS = ProtocolLimits(size_max=200_000, header_size_max=65_536, text_line_max=1_000, header_fields_max=100)
HEADER = b"Subject: x\r\n\r\n"


def told(house: House) -> Refused:
    """The only refusal that there is."""
    (event,) = [event for event in house.recorded if isinstance(event, Refused)]
    return event


def one_line(answer: str) -> str:
    """A reply as one line: what stands behind the code and the enhanced code of its lines."""
    first, *rest = answer.split("\n")
    return " ".join([first[:3] + " " + first[4:], *(line[10:] for line in rest)])


# ---- content


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (HEADER + b"one\ntwo\r\n", "550 5.5.2"),
        (HEADER + b"one\rtwo\r\n", "550 5.5.2"),
        (HEADER + b"one\0two\r\n", "550 5.5.2"),
        (HEADER + b"x" * 5_000 + b"\r\n", "554 5.6.0"),
        (b"A: b\r\n" * 200 + b"\r\n", "554 5.6.0"),
        ((b"A: " + b"b" * 900 + b"\r\n") * 90 + b"\r\n", "552 5.3.4"),
        (HEADER + (b"x" * 98 + b"\r\n") * 3_000, "552 5.3.4"),
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("chunked", [False, True])
def test_refused_content(octets: bytes, code: str, dialect: Dialect, chunked: bool) -> None:
    house = House(dialect=dialect, options=ReceiveOptions(hostname="mx.local.test", limits=LIMITS))
    client = opened(house, "LHLO c.test" if dialect is Dialect.LMTP else "EHLO c.test")
    client.say(OPEN)
    if chunked:
        answer = client.say(b"BDAT %d LAST\r\n" % len(octets) + octets)
    else:
        client.say("DATA\r\n")
        answer = client.say(octets + b".\r\n")
    assert answer.startswith(code) and told(house).reply == answer
    client.say("QUIT\r\n")
    client.hang_up()
    (end,) = [event for event in house.logged if isinstance(event, SessionEnded)]
    assert (end.errors, end.refusal) == (1, answer)


# ---- the refusal that is one too many


@pytest.mark.parametrize(
    "options",
    [ReceiveOptions(unknown_recipients_max=1), ReceiveOptions(refusals_max=1)],
    ids=["unknown recipients", "refusals"],
)
def test_the_refusal_that_ends_the_session(options: ReceiveOptions) -> None:
    house = House(options=options)
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    heard = [client.say("RCPT TO:<no@local.test>\r\n") for _ in range(2)]
    assert [answer[:3] for answer in heard] == ["550", "421"]
    assert [event.reply for event in house.recorded if isinstance(event, Refused)] == heard
    assert house.recorded[-1].reason == "unknown recipient"  # type: ignore[union-attr]


def test_the_error_that_ends_the_session_was_not_answered() -> None:
    house = House(options=ReceiveOptions(limits=ProtocolLimits(errors_max=1)))
    client = opened(house)
    heard = client.codes("NONSENSE", "RCPT")
    client.hang_up()
    assert heard == ["500 5.5.2", "421 4.7.0"]
    (end,) = [event for event in house.logged if isinstance(event, SessionEnded)]
    assert (end.reason, end.refusal[:9]) == ("Too many errors", "500 5.5.2")


# ---- rules


REPLIES = [
    Reply(550, "5.7.1", ("short",)),
    Reply(550, "5.7.1", ("one", "two")),
    Reply(550, "5.7.1", ("x" * 700,)),
    Reply(554, "5.7.1", ("\u00e4\u0007b",)),
    Reply(421, "4.7.0", ("go away",)),
    None,
]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("phase", ["connect", "hello", "mail", "rcpt", "message"])
def test_a_rule_refuses(reply: Reply | None, phase: str) -> None:
    def rule(context: Question) -> Verdict | Awaitable[Verdict]:
        return Verdict(Action.REJECT, reply, "because")

    house = House(rules=Rules(**{phase: rule}))
    client = house.client()
    heard = client.heard().decode().replace("\r\n", "\n").rstrip("\n")
    for said in ("EHLO c.test\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<ann@local.test>\r\n", "DATA\r\n", "\r\n.\r\n"):
        if any(isinstance(event, Refused) for event in house.recorded):
            break
        heard = client.say(said)
    assert heard[0] in "45" and told(house).reply == one_line(heard)
    assert told(house).reason == "because"


# ---- before a session


def test_a_client_that_finds_no_room() -> None:
    house = House(clients=ClientOptions(sessions_max=1))
    house.client()
    answer = house.client().heard().decode().rstrip("\r\n")
    assert answer.startswith("421 4.7.0") and told(house).reply == answer


def test_an_early_talker() -> None:
    house = House(listener=ListenerOptions("front", greet_delay_s=2.0, early_talker=EarlyTalker.REFUSE))
    client = house.client()
    client.say("EHLO x\r\n")
    house.loop.pass_time(3)
    assert told(house).reply == client.heard().decode().rstrip("\r\n")


def test_a_verdict_without_a_reply() -> None:
    house = House(admit=lambda address, trusted, auth: Verdict(Action.DEFER, None, "no reason", disconnect=True))
    answer = house.client().heard().decode().rstrip("\r\n")
    assert answer.startswith("421") and told(house).reply == answer


def test_where_nothing_can_be_said_nothing_is_told_as_said() -> None:
    """Before the handshake of implicit TLS a client can hear nothing."""
    house = House(listener=ListenerOptions("smtps", tls=ListenerTls.IMPLICIT), clients=ClientOptions(sessions_max=0))
    client = house.client()
    assert client.heard() == b"" and client.transport.closed
    assert told(house).reply == ""
    assert b": closed without a reply; " in human_line(told(house))


# ---- XCLIENT


def proxied(verdict: Verdict) -> House:
    def connect(context: Question) -> Verdict:
        return verdict if context.peer.address == "198.51.100.1" else Verdict(Action.ACCEPT)

    listener = ListenerOptions("front", xclient_networks=("192.0.2.0/24",))
    return House(listener=listener, rules=Rules(connect=connect))


def test_the_client_that_a_proxy_names_is_refused() -> None:
    house = proxied(reject(554, "5.7.1", "not you", "because"))
    client = opened(house)
    answer = client.say("XCLIENT ADDR=198.51.100.1\r\n")
    assert answer == "554 5.7.1 not you" and told(house).reply == answer
