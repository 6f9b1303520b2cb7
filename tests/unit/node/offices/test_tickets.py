"""The secret of session tickets is made anew when it has served its time."""

from __future__ import annotations

from postroad.node.offices.tickets import TicketSecret


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_secret_lives_as_long_as_it_may() -> None:
    time = Time()
    secret = TicketSecret(time)
    first = secret.octets
    assert len(first) == 32 and TicketSecret(time).octets != first
    time.now = 159.0
    assert not secret.renew(60) and secret.octets == first
    time.now = 160.0
    assert secret.renew(60) and secret.octets != first
    time.now = 219.0
    assert not secret.renew(60)
