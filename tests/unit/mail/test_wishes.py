"""What senders ask for beyond delivery, read from parameters."""

from __future__ import annotations

import pytest

from postroad.mail import wishes
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Notify, Recipient
from postroad.mail.wishes import ByMode, DeliverBy, ValidSince

AT_US = 1_790_000_000_000_000
RELAYED = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0")


def envelope(*parameters: tuple[str, str], sender: str = "ada") -> Envelope:
    reverse_path = Address(sender, "example.org") if sender else None
    return Envelope(1, reverse_path, (Recipient(Address("bob", "example.net")),), 10, AT_US, parameters=parameters)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("120;R", DeliverBy(120, ByMode.RETURN)),
        ("+0120;rt", DeliverBy(120, ByMode.RETURN, True)),
        ("-30;N", DeliverBy(-30, ByMode.NOTIFY)),
        ("0;nT", DeliverBy(0, ByMode.NOTIFY, True)),
        ("0;R", None),  # RFC 2852 §4: no time that is over before it begins
        ("-1;R", None),
        ("1234567890;N", None),
        ("10;X", None),
        ("10", None),
    ],
)
def test_by(value: str, found: DeliverBy | None) -> None:
    assert wishes.parse_by(value) == found


def test_the_deadline_is_that_of_its_own_mode() -> None:
    returned = envelope(("AUTH", "<>"), ("BY", "120;R"))
    assert wishes.deadline_us(returned, ByMode.RETURN) == AT_US + 120_000_000
    assert wishes.deadline_us(returned, ByMode.NOTIFY) == 0
    assert wishes.deadline_us(envelope(("BY", "-5;N")), ByMode.NOTIFY) == 0  # over before we had it: told already
    assert wishes.deadline_us(envelope(), ByMode.RETURN) == 0


@pytest.mark.parametrize(
    ("value", "waited_s", "left"),
    [("120;R", 20, "100;R"), ("120;nt", 130, "-10;NT"), ("-999999990;N", 100, "-999999999;N"), ("+5;N", 0, "5;N")],
)
def test_what_is_left_of_it(value: str, waited_s: int, left: str) -> None:
    assert wishes.by_left(value, waited_s) == left
    assert wishes.later("BY", value, waited_s) == left


@pytest.mark.parametrize(
    ("value", "notify", "passed", "told"),
    [
        ("60;NT", Notify.UNSET, True, True),
        ("60;RT", Notify.FAILURE, True, True),
        ("60;N", Notify.UNSET, True, False),
        ("60;N", Notify.UNSET, False, True),
        ("60;N", Notify.NEVER, False, False),
        ("60;RT", Notify.NEVER, True, False),
        ("60;R", Notify.UNSET, True, False),
    ],
)
def test_relaying_is_told_where_the_time_is_traced_or_nobody_keeps_it(
    value: str, notify: Notify, passed: bool, told: bool
) -> None:
    attempt = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", by_passed=passed)
    recipient = Recipient(Address("bob", "example.net"), notify)
    assert wishes.traces_relay(envelope(("BY", value)), recipient, attempt) is told
    assert not wishes.traces_relay(envelope(), recipient, attempt)
    delivered = Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0")
    assert not wishes.traces_relay(envelope(("BY", value)), recipient, delivered)


@pytest.mark.parametrize(
    ("parameter", "release_us"),
    [
        (("HOLDFOR", "60"), AT_US + 60_000_000),
        (("HOLDUNTIL", "2026-09-21T16:13:20+02:00"), 1_790_000_000_000_000),
        (("HOLDUNTIL", "2026-09-21t14:13:20.5z"), 1_790_000_000_500_000),
        (("HOLDUNTIL", "2026-13-21T14:13:20Z"), 0),
        (("X", "60"), 0),
    ],
)
def test_release(parameter: tuple[str, str], release_us: int) -> None:
    held = envelope(parameter)
    assert wishes.release_us(held) == release_us
    assert wishes.begin_us(held) == max(AT_US, release_us)
    assert wishes.later("HOLDFOR", "60", 20) == "40" and wishes.later("HOLDFOR", "60", 99) == "1"


def test_priority() -> None:
    assert [wishes.parse_priority(text) for text in ("0", "9", "-9", "+1", "10", "-0", "", "x")] == [
        0, 9, -9, None, None, None, None, None,
    ]  # fmt: skip
    assert wishes.priority((("MT-PRIORITY", "-4"),)) == -4 and wishes.priority(()) == 0


def test_tls_is_required_of_mail_that_can_be_returned() -> None:
    assert wishes.requires_tls(envelope(("REQUIRETLS", "")))
    assert not wishes.requires_tls(envelope(("REQUIRETLS", ""), sender=""))  # RFC 8689 §5
    assert not wishes.requires_tls(envelope(("TLS-REQUIRED", "NO")))
    assert wishes.tls_optional(envelope(("TLS-REQUIRED", "NO"))) and not wishes.tls_optional(envelope())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2014-04-03T23:01:00Z", ValidSince(1_396_566_060_000_000, False)),
        ("2014-04-03T23:01:00Z;R", ValidSince(1_396_566_060_000_000, False)),
        ("2014-04-03T23:01:00Z;c", ValidSince(1_396_566_060_000_000, True)),
        ("2014-04-03T23:01:00Z;H", ValidSince(1_396_566_060_000_000, True, True)),
        ("2014-04-03", None),
        ("soon;C", None),
    ],
)
def test_valid_since(value: str, found: ValidSince | None) -> None:
    assert wishes.parse_valid_since(value) == found
    recipient = Recipient(Address("bob", "example.net"), parameters=(("RRVS", value),))
    assert wishes.valid_since(recipient) == found


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("2014-04-03T23:01:00Z", 1_396_566_060_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),  # a leap second
        ("2014-04-03T23:01:00", None),
        ("2014-04-03 23:01:00Z", None),
        ("", None),
    ],
)
def test_date_time(text: str, at_us: int | None) -> None:
    assert wishes.date_time_us(text) == at_us
    if at_us is not None and not text.endswith(":60Z"):
        assert wishes.date_time(at_us) == text
    assert wishes.date_or_time_us("2014-04-03") == 1_396_483_200_000_000
