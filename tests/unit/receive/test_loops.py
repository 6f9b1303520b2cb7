"""Mail that comes back: refused at the end of data, or left out, by our own marks only."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.event import Accepted, Refused, Removed
from postroad.mail.expansion import Expansion, Passed
from postroad.mail.loop import Marks
from postroad.mail.policy import Role
from postroad.protocol.offer import Dialect
from postroad.receive.options import ReceiveOptions
from tests.unit.receive.fakes import House, opened
from tests.unit.receive.test_session import content

MARKS = Marks(b"the node's secret")
ID = "<1@x.test>"
ANN, BOB = Address("ann", "local.test"), Address("bob", "local.test")
MAIL = b"Message-ID: <1@x.test>\r\nSubject: x\r\n\r\nhello\r\n"


def sent(house: House, octets: bytes, *to: str) -> list[str]:
    lmtp = house.listener_options.protocol is Dialect.LMTP
    client = opened(house, "LHLO client.test" if lmtp else "EHLO client.test")
    client.codes("MAIL FROM:<eve@elsewhere.test>", *(f"RCPT TO:<{name}>" for name in to), "DATA")
    answer: str = client.say(octets + b".\r\n")
    return answer.splitlines()


def delivered(*mailboxes: Address, marks: Marks = MARKS, message_id: str = ID) -> bytes:
    return loop.field(marks.delivered(each, message_id) for each in mailboxes)


def ring(id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None = None) -> Expansion:
    """ann leads to two mailboxes elsewhere."""
    if passed is not None and passed(ANN):
        return Expansion((), stopped=(ANN,))
    return Expansion(tuple(Recipient(Address(name, "b.test")) for name in ("u", "v")), through=(ANN,))


@pytest.mark.parametrize("options", [ReceiveOptions(), ReceiveOptions(memory_content_max=100)])
def test_a_mailbox_that_has_the_message_refuses_it_at_the_end_of_data(options: ReceiveOptions) -> None:
    house = House(marks=MARKS, options=options)
    big = MAIL + b"x" * 70 + b"\r\n" if options.memory_content_max == 100 else MAIL
    (answer,) = sent(house, delivered(ANN) + big, "ann@local.test")
    assert answer.startswith("554 5.4.6") and "<ann@local.test> had this message before" in answer
    assert not house.spool.stored
    assert [event.reason for event in house.recorded if isinstance(event, Refused)] == ["mail loop"]


def test_who_has_not_had_it_gets_it_and_the_history_says_of_the_others() -> None:
    house = House(marks=MARKS)
    assert sent(house, delivered(ANN) + MAIL, "ann@local.test", "bob@local.test")[0].startswith("250")
    assert [each.address for each in house.spool.stored[0].envelope.recipients] == [BOB]
    accepted, removed = house.spool.events
    assert isinstance(accepted, Accepted) and isinstance(removed, Removed)
    assert removed.recipients == ("ann@local.test",) and "loop" in removed.text


@pytest.mark.parametrize(
    "fields",
    [
        b"Delivered-To: ann@local.test\r\n",
        b"X-Postroad-Loop: AAAAAAAAAAAAAAAA\r\n",
        delivered(BOB),
        delivered(ANN, marks=Marks(b"another node's")),
        delivered(ANN, message_id="<another@x.test>"),
    ],
)
def test_nothing_else_is_a_loop(fields: bytes) -> None:
    house = House(marks=MARKS)
    assert sent(house, fields + MAIL, "ann@local.test")[0].startswith("250")
    assert content(house).endswith(fields + MAIL)


def test_over_lmtp_no_mailbox_refuses() -> None:
    house = House(marks=MARKS, dialect=Dialect.LMTP)
    answers = sent(house, delivered(ANN, BOB) + MAIL, "ann@local.test", "bob@local.test")
    assert [answer[:3] for answer in answers] == ["250", "250"]


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("memory_max", [100, 1_000_000])
def test_a_message_is_led_through_an_alias_once(dialect: Dialect, memory_max: int) -> None:
    options = ReceiveOptions(memory_content_max=memory_max)
    house = House(marks=MARKS, expand=ring, dialect=dialect, options=options)
    assert sent(house, MAIL + b"x" * 200 + b"\r\n", "ann@local.test")[0].startswith("250")
    left = content(house)
    mark = loop.field((MARKS.expanded(ANN, ID),))
    assert left.startswith(b"Received: ") and left.count(mark) == 1 and left.endswith(b"x" * 200 + b"\r\n")
    # Elsewhere each of the two mailboxes leads back, with trace fields on top.
    for _ in range(3):
        assert sent(house, b"Received: from a\r\n\tby b; c\r\n" + left, "ann@local.test")[0].startswith("554 5.4.6")
    assert len(house.spool.stored) == 1


def test_a_submission_without_message_id_is_marked_by_the_one_that_it_gets() -> None:
    house = House(marks=MARKS, expand=ring, role=Role.RELAY)
    assert sent(house, b"Subject: x\r\n\r\nhello\r\n", "ann@local.test")[0].startswith("250")
    assert loop.field((MARKS.expanded(ANN, ""),)) in content(house)


def test_aliases_that_lead_to_too_much_refuse_the_message() -> None:
    def wide(*given: Any, **named: Any) -> Expansion:
        return Expansion((), excess="<ann@local.test>: the alias leads to more than 3 mailboxes")

    house = House(marks=MARKS, expand=wide)
    assert sent(house, MAIL, "ann@local.test")[0].startswith("554 5.2.4 <ann@local.test>")
    assert not house.spool.stored
