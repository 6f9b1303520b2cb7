"""What the parameters of a message do to its destination."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.owned import Owned
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.route.demand import refined

BY_MX = Destination("x.example", Transport.SMTP, domain="x.example", tls=TlsDemand.ENCRYPT)
BY_HOST = Destination("[h]:25", Transport.SMTP, host="h", tls=TlsDemand.VERIFY)
HOME = Destination("maildir:x.example", Transport.MAILDIR, domain="x.example")
BOB = Recipient(Address("bob", "x.example"))


def envelope(*parameters: tuple[str, str]) -> Envelope:
    return Envelope(1, Address("a", "b.test"), (BOB,), 1, 1, parameters=parameters)


@pytest.mark.parametrize("before", [BY_MX, BY_HOST, Destination("y", Transport.SMTP, tls=TlsDemand.NONE)])
def test_requiretls_makes_a_destination_of_its_own(before: Destination) -> None:
    after = refined(envelope(("REQUIRETLS", "")), BOB, before, None)
    assert isinstance(after, Destination)
    assert (after.key, after.tls, after.require_tls) == (f"{before.key}/requiretls", TlsDemand.VERIFY, True)


def test_implicit_tls_stays_implicit() -> None:
    before = Destination("y", Transport.SMTP, host="y", tls=TlsDemand.IMPLICIT)
    after = refined(envelope(("REQUIRETLS", "")), BOB, before, None)
    assert isinstance(after, Destination) and after.tls is TlsDemand.IMPLICIT


@pytest.mark.parametrize(
    ("before", "relaxed"),
    [
        (BY_MX, True),
        (BY_HOST, False),  # the operator has named it
        (Destination("y", Transport.SMTP, domain="y", tls=TlsDemand.VERIFY), True),
        (Destination("y", Transport.SMTP, domain="y", tls=TlsDemand.VERIFY, credentials="c"), False),
        (Destination("y", Transport.SMTP, domain="y", tls=TlsDemand.MAY), False),
        (HOME, False),
    ],
)
def test_tls_required_no_lessens_what_a_domain_demands(before: Destination, relaxed: bool) -> None:
    after = refined(envelope(("TLS-REQUIRED", "NO")), BOB, before, None)
    assert isinstance(after, Destination)
    if relaxed:
        assert (after.key, after.tls) == (f"{before.key}/tls-optional", TlsDemand.MAY)
    else:
        assert after is before


@pytest.mark.parametrize(
    ("asked", "owned", "status"),
    [
        ("2014-01-01T00:00:00Z", Owned(1_388_534_400_000_000), ""),
        ("2013-12-31T23:59:59Z", Owned(1_388_534_400_000_000), "5.7.17"),
        ("2013-12-31T23:59:59Z;H", Owned(0, 1_388_534_400_000_000), "5.7.18"),
        ("2013-12-31T23:59:59Z", Owned(), ""),
        ("2013-12-31T23:59:59Z", None, ""),
    ],
)
def test_another_owner(asked: str, owned: Owned | None, status: str) -> None:
    recipient = Recipient(BOB.address, parameters=(("RRVS", asked),))
    found = refined(envelope(), recipient, HOME, owned)
    if status:
        assert isinstance(found, Attempt) and (found.outcome, found.status) == (Outcome.FAILED, status)
    else:
        assert found is HOME
