"""How many reports go to strangers, over all workers of a node."""

from __future__ import annotations

from postroad.check import reports
from postroad.check.reports import ReportLimits, ReportRates
from postroad.check.tally import Tally, TallyOffice
from postroad.mail.address import Address

HOUR_US = 3_600_000_000
ANN, BOB = Address("ann", "a.test"), Address("bob", "b.test")
LENGTHS_S = (60.0, 600.0, 3600.0)


def alone(limits: ReportLimits) -> ReportRates:
    return ReportRates(limits, Tally(LENGTHS_S, lambda told: None, lambda seconds, call: None))


def test_an_address_gets_so_many_within_the_time() -> None:
    rates = alone(ReportLimits(3600, 3, 0))
    assert [bool(rates.refusal(ANN, at)) for at in range(5)] == [False, False, False, True, True]
    assert "more than 3 reports to this address within 3600 s" in rates.refusal(Address("ANN", "a.test"), 6)
    assert not rates.refusal(BOB, 7)
    assert not rates.refusal(ANN, 3 * HOUR_US)


def test_writing_an_address_otherwise_makes_no_other_of_it() -> None:
    rates = alone(ReportLimits(3600, 3, 0))
    named = ["ann", "ANN+1", "ann+list=x", "aNn+2"]
    assert [bool(rates.refusal(Address(name, "a.test"), 1)) for name in named] == [False, False, False, True]
    composed = ["u\u0308", "\u00fc", "\u00dc", "U\u0308+x"]
    assert [bool(rates.refusal(Address(name, "a.test"), 1)) for name in composed] == [False, False, False, True]
    assert not rates.refusal(Address("+ann", "a.test"), 1)


def test_all_together_get_so_many() -> None:
    rates = alone(ReportLimits(3600, 0, 2))
    assert [bool(rates.refusal(Address(f"u{at}", "a.test"), at)) for at in range(3)] == [False, False, True]


def test_zero_is_no_limit() -> None:
    rates = alone(ReportLimits(3600, 0, 0))
    assert not any(rates.refusal(ANN, at) for at in range(1000))


def test_workers_count_together() -> None:
    limits = ReportLimits(3600, 4, 0)
    tallies: list[Tally] = []
    office = TallyOffice(
        3, lambda number, told: tallies[number].hear(told, 1), lambda key: reports.limit_of(key, limits),
        lambda key: None,
    )
    for number in (0, 1):
        tallies.append(
            Tally(LENGTHS_S, lambda told, number=number: office.take_counts(number, told), lambda seconds, call: None)
        )
        office.worker_up(number)
    one, other = (ReportRates(limits, tally) for tally in tallies)
    assert not any(one.refusal(ANN, 1) for _ in range(4))
    tallies[0]._tell_now()
    assert other.refusal(ANN, 1)
