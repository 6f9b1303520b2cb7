"""Known outages, with whole nodes: a restart in the middle of much, no DNS for an hour, a clock that jumps."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable

import pytest

from tests.sim import plan as plans
from tests.sim.house import House, folder_in_memory
from tests.sim.sender import Order

HOUR_S = 3600.0


def _calm(**changes: object) -> plans.Plan:
    """Nothing goes wrong but what a test says."""
    made = plans.plan(1, days=0.15)
    settings = ("[queue]", "retry_max_s = 3600", "[store]", "free_min = 1000")
    return dataclasses.replace(
        made, settings=settings, messages=0, trouble=0.0, dns=False, network=0.0, crashes=0, power_cuts=0,
        restarts=0, disk=0, reloads=0, operators=0, jumps=0, lifetime_days=5.0, tls=False, dead_address=False,
        workers=2, dropped=0, looked_up=False, parts=frozenset(), **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def _order(number: int, recipients: tuple[str, ...], *, follow: int = 0) -> Order:
    return Order(
        number, plans.DOORS["relay"], lmtp=False, address="198.51.100.1", sender="ann@home.test",
        recipients=tuple((each, "") for each in recipients), body=b"x\r\n", pipelining=True, bdat=False, leaves="",
        follow=follow,
    )  # fmt: skip


def _run(made: plans.Plan, happens: Callable[[House], None]) -> House:
    folder = folder_in_memory()
    try:
        house = House(made, folder)
        for host in house.hosts:
            host.offers, host.lies, host.grey_s, host.messages_max = ("PIPELINING",), frozenset(), 0.0, 0
        happens(house)
        house.run()
        assert house.ledger.faults == []
        return house
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _came(house: House) -> Counter[str]:
    """How often each message came to each recipient that is no sender."""
    return Counter(
        f"{each.message_id} {each.recipient}" for each in house.ledger.deliveries if each.recipient != "ann@home.test"
    )


@pytest.mark.slow
def test_a_restart_with_a_thousand_messages_half_done() -> None:
    """Of each message one recipient is done, one has failed and one waits."""
    waited: list[int] = []

    def happens(house: House) -> None:
        def no_inspection_raises() -> None:
            for worker in house.node.workers:
                assert worker.assembly is not None
                for each in worker.assembly._edition.inspectors.values():
                    each.calm = True  # type: ignore[attr-defined]

        house.base.call_later(5.0, no_inspection_raises)
        for number in range(20):
            order = _order(number, ("u1@r0.test", "bad1@r1.test", "later1@r2.test"), follow=49)
            house.base.call_later(10.0 + number, house._send, order, 1)
        house.base.call_later(HOUR_S, crash, house)

    def crash(house: House) -> None:
        waited.append(sum(recipient == "later1@r2.test" for _, _, recipient, _, _ in house.node.waiting()))
        house.node.crash(house.node.workers[0], "killed")
        house.base.call_later(HOUR_S / 2, house.node.power_cut, 60.0)

    house = _run(_calm(), happens)
    assert waited == [1000], "all were half done"
    came = _came(house)
    assert sum(len(each.told) for each in house.ledger.submitted) == 3000
    # The world refuses a few recipients for a while, by chance, until it is healed: not one is lost, none comes twice.
    assert len(came) == 2000 and set(came.values()) == {1}
    reports = [each for each in house.ledger.deliveries if ".report@" in each.message_id]
    failed = [each for each in reports if b"Action: failed" in each.content]
    assert len(failed) == 1000 and all(b"bad1@r1.test" in each.content for each in failed), "one report for each"


@pytest.mark.slow
def test_dns_that_is_away_for_an_hour_only_delays() -> None:
    def happens(house: House) -> None:
        for number in range(40):
            order = _order(number, tuple(f"u1@r{domain}.test" for domain in range(3)))
            house.base.call_later(120.0 * number, house._send, order, 1)
        house.base.call_later(600.0, setattr, house.names, "down", True)
        house.base.call_later(600.0 + HOUR_S, setattr, house.names, "down", False)

    house = _run(_calm(), happens)
    came = _came(house)
    assert len(came) == 120 and set(came.values()) == {1}
    assert not any(b"Action: failed" in each.content for each in house.ledger.deliveries)


@pytest.mark.slow
@pytest.mark.parametrize("jump_h", [-72, -5, -1, 1, 5, 72])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_by_hours_strands_nobody(jump_h: int, restarted: bool) -> None:
    """While mail waits for its retry; more comes behind the jump. All of it arrives once, none fails."""

    def happens(house: House) -> None:
        for number in range(30):
            order = _order(number, ("u1@r0.test", "later1@r1.test", "cid@home.test"))
            house.base.call_later(240.0 * number, house._send, order, 1)
        house.base.call_later(HOUR_S, house.node.jump, jump_h * HOUR_S)
        if restarted:
            house.base.call_later(HOUR_S + 1.0, house.node.power_cut, 10.0)

    house = _run(_calm(), happens)
    came = _came(house)
    assert len(came) == 90 and set(came.values()) == {1}
    assert not any(b"Action: failed" in each.content for each in house.ledger.deliveries)


@pytest.mark.slow
def test_four_weeks_are_a_run_as_any_other() -> None:
    made = dataclasses.replace(plans.plan(5, days=28.0), messages=24, crashes=6, power_cuts=3, restarts=3, disk=3)
    folder = folder_in_memory()
    try:
        house = House(made, folder)
        house.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert house.ledger.faults == [] and house.base.now > 28 * 86_400
