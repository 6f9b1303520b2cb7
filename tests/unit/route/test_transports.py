"""Values of transport maps, and the keys under which they stand."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.route.options import NextHop
from postroad.route.transports import chosen, transport_steps

HOPS = (
    NextHop("*", "hub.test", 587, tls=TlsDemand.VERIFY, credentials="customer"), NextHop("x.test", "mx.test", mx=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("smtp:[Host.test]:2525", NextHop("", "host.test", 2525, tls=TlsDemand.ENCRYPT)),
        ("relay:[192.0.2.1]", NextHop("", "192.0.2.1", 25, tls=TlsDemand.ENCRYPT)),
        (":[ipv6:2001:db8::1]:26", NextHop("", "2001:db8::1", 26, tls=TlsDemand.ENCRYPT)),
        ("smtp:other.test", NextHop("", "other.test", 25, True, TlsDemand.ENCRYPT)),
        ("smtp:[hub.test]:587", NextHop("", "hub.test", 587, tls=TlsDemand.VERIFY, credentials="customer")),
        ("smtp:mx.test", NextHop("", "mx.test", mx=True)),
        ("smtp:[hub.test]", NextHop("", "hub.test", 25, tls=TlsDemand.ENCRYPT)),
        ("smtp:", NextHop("")),
        (":", None),
        (" : ", None),
        ("lmtp:unix:/run/lmtp", Destination("lmtp:/run/lmtp", Transport.LMTP, path="/run/lmtp")),
        ("lmtp:inet:h.test:2424", Destination("lmtp:[h.test]:2424", Transport.LMTP, host="h.test", port=2424)),
        ("lmtp:[192.0.2.9]", Destination("lmtp:[192.0.2.9]:24", Transport.LMTP, host="192.0.2.9", port=24)),
    ],
)
def test_values(value: str, expected: NextHop | Destination | None) -> None:
    assert chosen(value, "transport", HOPS, TlsDemand.ENCRYPT) == expected


@pytest.mark.parametrize(
    ("value", "outcome", "status", "text"),
    [
        ("error:5.1.6 moved away", Outcome.FAILED, "5.1.6", "moved away"),
        ("error:4.2.1 full", Outcome.FAILED, "5.2.1", "full"),
        ("error:no such thing", Outcome.FAILED, "5.0.0", "no such thing"),
        ("error:", Outcome.FAILED, "5.0.0", "refuses"),
        ("retry:4.7.9 later", Outcome.DEFERRED, "4.7.9", "later"),
        ("retry:5.7.9 later", Outcome.DEFERRED, "4.7.9", "later"),
        ("[h.test]:25", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("hub.test", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("maildrop:", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("smtp:[h.test]:99999", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("smtp:two words", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("lmtp:unix:relative", Outcome.DEFERRED, "4.3.5", "no transport"),
        ("", Outcome.DEFERRED, "4.3.5", "no transport"),
    ],
)
def test_values_that_lead_nowhere(value: str, outcome: Outcome, status: str, text: str) -> None:
    found = chosen(value, "transport", HOPS, TlsDemand.MAY)
    assert isinstance(found, Attempt) and (found.outcome, found.status) == (outcome, status) and text in found.text


def test_keys() -> None:
    def keys(local: bool) -> list[str]:
        return [step.key for step in transport_steps(Address("ada+x", "a.b.test"), "+", local=local)]

    assert keys(False) == ["ada+x@a.b.test", "ada@a.b.test", "a.b.test", ".b.test", ".test", "*"]
    assert keys(True) == ["ada+x@a.b.test", "ada@a.b.test"]
