"""Which recipients are report mailboxes, and that nothing but the key of their way changes."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import REQUIRE_TLS, Destination, Transport, domain_of, mailbox_itself, plain_key
from postroad.mail.routing import Answer, Found, not_now
from postroad.route.recipients import Mailboxes, Recipients
from postroad.route.report_mailboxes import ReportMailboxes, ReportRoute

WAY = Destination("maildir:here.example", Transport.MAILDIR, domain="here.example")
ENVELOPE = Envelope(1, None, (), 0, 0)
MAILBOXES = ReportMailboxes(["DMARC@here.example", "a@b\u00fccher.example"])


def asked(recipient: Recipient, way: Answer = WAY) -> Answer:
    return ReportRoute(MAILBOXES, lambda envelope, recipient: way)(ENVELOPE, recipient)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("dmarc@here.example", True), ("Dmarc+google@here.example", True), ("a@xn--bcher-kva.example", True),
        ("dmarcs@here.example", False), ("dmarc@there.example", False), ("x@here.example", False),
    ],
)  # fmt: skip
def test_by_its_name_or_by_that_under_which_it_was_given(name: str, is_one: bool) -> None:
    local_part, _, domain = name.rpartition("@")
    address, other = Address(local_part, domain), Address("ada", "there.example")
    for recipient in (Recipient(address), Recipient(other, given=address)):
        found = asked(recipient)
        assert isinstance(found, Destination)
        assert found.reports is is_one
        assert mailbox_itself(found) == WAY if is_one else found is WAY
    assert asked(Recipient(other)) is WAY


def test_what_is_no_destination_stays() -> None:
    later = not_now("x")
    recipient = Recipient(Address("dmarc", "here.example"))
    assert asked(recipient, later) is later


async def test_an_answer_that_must_be_waited_for() -> None:
    async def found(answer: Found) -> Found:
        return answer

    recipient = Recipient(Address("dmarc", "here.example"))
    way = asked(recipient, found(WAY))
    assert isinstance(way, Awaitable)
    answer = await way
    assert isinstance(answer, Destination) and answer.reports
    way = asked(recipient, found(not_now("x")))
    assert isinstance(way, Awaitable) and isinstance(await way, Attempt)


def test_keys() -> None:
    key = "example.org/reports" + REQUIRE_TLS
    assert plain_key(key) == domain_of(key) == "example.org"
    odd = Destination("lmtp:/run/reports/x/reports", Transport.LMTP, reports=True)
    assert mailbox_itself(odd).key == "lmtp:/run/reports/x"


def test_they_exist_without_being_named() -> None:
    recipients = Recipients({"here.example": Mailboxes(("ada",))}, further=MAILBOXES)
    mailbox = Address("dmarc", "here.example")
    assert recipients.known(mailbox) and recipients.has_box(mailbox)
    assert recipients.known(Address("bob", "here.example")) is False
    assert recipients.known(Address("a", "xn--bcher-kva.example")) is None, "the domain is not ours"
