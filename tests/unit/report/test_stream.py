"""The stream of events: who hears what, in which order, whatever another reader does."""

from __future__ import annotations

from postroad.mail.event import Event, Noted
from postroad.report.stream import Stream


def noted(text: str) -> tuple[Event, ...]:
    return (Noted(1, 0, "info", text),)


def test_each_reader_hears_each_event_once_in_order_and_what_is_recorded_is_kept() -> None:
    kept: list[Event] = []
    first: list[Event] = []
    second: list[Event] = []
    stream = Stream(lambda error: None)
    stream.subscribe(first.extend)
    stream.tell(noted("before there is a spool"))
    stream.keep = kept.extend
    stream.subscribe(second.extend)
    stream.record(noted("recorded"))
    stream.published(3, noted("committed"))
    stream.tell(noted("told"))
    assert first == [*noted("before there is a spool"), *second]
    assert second == [*noted("recorded"), *noted("committed"), *noted("told")]
    assert kept == [*noted("recorded")]


def test_a_reader_that_breaks_takes_nothing_from_the_others() -> None:
    heard: list[Event] = []
    faults: list[Exception] = []

    def broken(events: tuple[Event, ...]) -> None:
        raise RuntimeError("made by the test")

    stream = Stream(faults.append)
    stream.subscribe(broken)
    stream.subscribe(heard.extend)
    stream.published(0, noted("committed"))
    assert heard == [*noted("committed")] and len(faults) == 1
