"""What one message may ask of the DNS."""

from __future__ import annotations

import asyncio

import pytest

from postroad.trust.asking import AskingLimits, DnsQuestions, RecordType, queried
from postroad.world.dns import DnsStatus, MxRecord
from tests.unit.trust.zones import ZoneResolver

ZONES = {
    "a.example": {"TXT": ["one", "two"], "A": ["192.0.2.1"], "AAAA": ["2001:db8::1"], "MX": ["10 mx.a.example"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["a.example"]},
    "alias.example": {"CNAME": ["a.example"]},
    "broken.example": {"TXT": ["ERROR"]},
}


async def test_all_kinds_of_questions_and_their_log() -> None:
    asking = DnsQuestions(ZoneResolver(ZONES))
    assert (await asking.text("a.example")).records == ("one", "two")
    assert (await asking.a("A.example.")).records == ("192.0.2.1",)
    assert (await asking.aaaa("a.example")).records == ("2001:db8::1",)
    assert (await asking.mx("a.example")).records == (MxRecord(10, "mx.a.example"),)
    assert (await asking.reverse("192.0.2.1")).records == ("a.example",)
    assert (await asking.cname("alias.example")).records == ("a.example",)
    assert [(each.type, each.name) for each in asking.log] == [
        (RecordType.TXT, "a.example"), (RecordType.A, "A.example."), (RecordType.AAAA, "a.example"),
        (RecordType.MX, "a.example"), (RecordType.PTR, "192.0.2.1"), (RecordType.CNAME, "alias.example"),
    ]  # fmt: skip
    assert (asking.queries, asking.exceeded) == (6, "")


async def test_the_same_question_is_asked_once() -> None:
    resolver = ZoneResolver(ZONES)
    asking = DnsQuestions(resolver, AskingLimits(queries_max=2))
    for _ in range(5):
        assert (await asking.text("broken.example")).status is DnsStatus.ERROR
        assert (await asking.text("a.example")).status is DnsStatus.FOUND
    assert resolver.asked == ["TXT broken.example", "TXT a.example"]
    assert len(asking.log) == asking.queries == 2


async def test_too_many_queries() -> None:
    resolver = ZoneResolver(ZONES)
    asking = DnsQuestions(resolver, AskingLimits(queries_max=3))
    answers = [await asking.text(f"{number}.example") for number in range(5)]
    assert [answer.status for answer in answers] == [DnsStatus.NXDOMAIN] * 3 + [DnsStatus.ERROR] * 2
    assert "more than 3 DNS queries" in answers[3].text
    assert asking.exceeded == answers[3].text
    assert len(resolver.asked) == 3
    assert len(asking.log) == 5


async def test_too_much_time() -> None:
    resolver = ZoneResolver(ZONES, slow_s=60.0)
    asking = DnsQuestions(resolver, AskingLimits(waiting_max_s=0.01))
    first = await asking.text("a.example")
    second = await asking.text("b.example")
    assert (first.status, second.status) == (DnsStatus.ERROR, DnsStatus.ERROR)
    assert "longer than 0.01 s" in first.text and asking.exceeded == first.text
    assert resolver.asked == ["TXT a.example"]  # nothing is asked once the time is used up


async def test_questions_side_by_side_use_the_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = DnsQuestions(ZoneResolver(ZONES, slow_s=0.001), AskingLimits(waiting_max_s=100.0))
    now = 0.0
    loop = asyncio.get_running_loop()
    fake = {"time": staticmethod(lambda: now), "call_later": loop.call_later}
    monkeypatch.setattr(asking, "_loop", type("Loop", (), fake))
    under_way = [asyncio.ensure_future(asking.text(name)) for name in ("a.example", "b.example", "c.example")]
    await asyncio.sleep(0)
    now = 60.0
    assert [answer.status for answer in await asyncio.gather(*under_way)].count(DnsStatus.ERROR) == 0
    now = 1000.0  # in between the message came in: this time does not count
    assert (await asking.text("d.example")).status is DnsStatus.NXDOMAIN
    assert asking.exceeded == ""


async def test_the_time_is_over_for_all_that_are_under_way() -> None:
    asking = DnsQuestions(ZoneResolver(ZONES, slow_s=60.0), AskingLimits(waiting_max_s=0.05))
    answers = await asyncio.gather(asking.text("a.example"), asking.a("b.example"), asking.reverse("192.0.2.1"))
    assert [each.status for each in answers] == [DnsStatus.ERROR] * 3
    assert all("longer than 0.05 s" in each.text for each in answers)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0  # who asked goes on
    async with asyncio.timeout(10):  # a time limit of the caller's own still works
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await DnsQuestions(ZoneResolver(ZONES, slow_s=60.0)).text("a.example")


async def test_who_is_cancelled_when_the_time_is_over_is_cancelled() -> None:
    asking = DnsQuestions(ZoneResolver(ZONES, slow_s=60.0), AskingLimits(waiting_max_s=0.01))
    task = asyncio.ensure_future(asking.text("a.example"))
    await asyncio.sleep(0)
    asking._expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_is_cancelled_leaves_the_others_alone() -> None:
    asking = DnsQuestions(ZoneResolver(ZONES, slow_s=0.01))
    gone, stays = asyncio.ensure_future(asking.text("a.example")), asyncio.ensure_future(asking.text("b.example"))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).status is DnsStatus.NXDOMAIN
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert [each.name for each in asking.log] == ["b.example"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("A.Example.", "a.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("", None),
        (".", None),
        ("x" * 254, None),
        ("ü" * 80 + ".example", None),
        ("a ü.example", None),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
async def test_names_as_they_are_asked(name: str, expected: str | None) -> None:
    assert queried(name) == expected
    resolver = ZoneResolver({})
    if expected is None:
        assert (await DnsQuestions(resolver).text(name)).status is DnsStatus.NXDOMAIN
        assert resolver.asked == []
