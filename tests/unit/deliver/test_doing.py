"""What a connection is doing, in words: each step has its words, and a hop is named as operators know it."""

from __future__ import annotations

import pytest

from postroad.deliver.doing import WAITS, Trying, carrying, place
from postroad.mail.route import Hop
from postroad.protocol.client_events import Step


def test_each_step_has_words() -> None:
    assert set(WAITS) == set(Step)


@pytest.mark.parametrize(
    ("hop", "named"),
    [
        (Hop("mx.example.org", "192.0.2.1"), "mx.example.org[192.0.2.1]:25"),
        (Hop("192.0.2.1", "192.0.2.1", 2525), "[192.0.2.1]:2525"),
        (Hop("lmtp", "/run/dovecot/lmtp", 0), "/run/dovecot/lmtp"),
    ],
)
def test_a_hop_is_named(hop: Hop, named: str) -> None:
    assert place(hop) == named
    assert carrying(hop, Step.DATA, 3.6) == f"{named}: in a transaction for 4 s, waits for the answer to DATA"


def test_the_opening_of_a_connection_says_how_far_it_is() -> None:
    class Machine:
        step = Step.STARTTLS

    trying = Trying("example.org", 10.0)
    assert trying.in_words(12.0) == "looks up the hosts for 2 s"
    trying.goes_to(Hop("mx.example.org", "192.0.2.1"), 15.0)
    assert trying.in_words(16.0) == "mx.example.org[192.0.2.1]:25: connects for 1 s"
    trying.machine = Machine()  # type: ignore[assignment]
    assert trying.in_words(18.0) == "mx.example.org[192.0.2.1]:25: waits for the answer to STARTTLS for 3 s"
