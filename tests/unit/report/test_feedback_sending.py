"""Daily reports: each is sent once to each destination, at a moment of its own, whatever crashes when."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail.event import Event
from postroad.node.collecting import Collection, _turns
from postroad.report import feedback_sending
from postroad.report.feedback import DmarcRow, TlsPolicySeen, TlsRow, date_of
from postroad.report.feedback_mail import Compressed
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.feedback_sending import COLLECT_AFTER_S, FeedbackDoors, FeedbackSending
from postroad.store import feedback_days
from postroad.store.feedback_days import DayMaker, DaySending, FeedbackDay, ReportState, SendingState
from postroad.store.values import Failure, FailureKind, Stored
from tests.unit.trust.zones import ZoneResolver

DAY = 20_787  # 2026-11-30
MIDNIGHT_US = (DAY + 1) * 86_400_000_000
OPTIONS = FeedbackOptions(organization="Example", contact="dmarc@node.example", hostname="mx.node.example")
RUA = "rua=mailto:a@example.com,mailto:b@example.com"
ZONES: dict[str, Any] = {
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=none"]},
    "_smtp._tls.example.net": {"TXT": ["v=TLSRPTv1;rua=mailto:tls@example.net,https://example.net/tls"]},
    "example.org": {"A": ["192.0.2.1"]},
}
ENCODE = msgspec.msgpack.encode


class Crash(BaseException):
    """The process is gone."""


class Place:
    """What outlives a crash (the days' files, what was accepted, what servers got), and the doors to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder / feedback_days.FOLDER
        self.now_us = MIDNIGHT_US
        self.zones: dict[str, Any] = {key: dict(value) for key, value in ZONES.items()}
        self.accepted: dict[int, Stored] = {}
        self.queued: list[int] = []
        self.posted: list[tuple[str, Compressed]] = []
        self.collected: list[int] = []
        self.logged: list[str] = []
        self.steps = 0
        self.crash_at = -1
        self.fails: list[Failure] = []
        self.post_says: list[str] = []
        self.rows: list[tuple[str, str, bytes, int]] = [
            ("dmarc", "example.com", ENCODE(DmarcRow("192.0.2.1", "example.com", "none", True, False)), 3),
            ("tls", "example.net", ENCODE(TlsRow(TlsPolicySeen("no-policy-found", "example.net"))), 2),
            ("tls", "example.org", ENCODE(TlsRow(TlsPolicySeen("no-policy-found", "example.org"))), 2),
        ]
        self.record = f"v=DMARC1; p=none; {RUA}"
        self.history_answers = True
        self.spread_s = OPTIONS.spread_s

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash

    def doors(self) -> FeedbackDoors:
        return FeedbackDoors(
            folder=self.folder, now_us=lambda: self.now_us, names=lambda: ZoneResolver(self.zones),
            new_id=self._new_id, accept=self._accept, queued=lambda stored: self.queued.append(stored.envelope.id),
            post=self._post, collect=self._collect, was_accepted=self._was_accepted, off_loop=self._off_loop,
            log=lambda level, text: self.logged.append(text),
        )  # fmt: skip

    def _new_id(self) -> int:
        return 1_000 + self.steps

    def _accept(
        self, stored: Stored, events: tuple[Event, ...], done: Callable[[Failure | None], None]
    ) -> None:
        self._step()
        if self.fails:
            done(self.fails.pop(0))
            return
        assert stored.envelope.id not in self.accepted
        self.accepted[stored.envelope.id] = stored
        self._step()  # committed, and then the end
        done(None)

    async def _post(self, uri: str, report: Compressed) -> str:
        self._step()
        self.posted.append((uri, report))
        self._step()
        return self.post_says.pop(0) if self.post_says else ""

    async def _collect(self, day: int) -> str:
        self._step()
        self.collected.append(day)
        maker = DayMaker(self.folder, date_of(day))
        if day == DAY:
            maker.add(self.rows)
            maker.set_records({"example.com": (1, self.record)})
        try:
            self._step()
        except Crash:
            os.close(maker._lock)  # the process is gone, and its lock with it
            raise
        wanted = Collection("", day, OPTIONS.kinds, (), OPTIONS.hostname, self.spread_s, COLLECT_AFTER_S)
        maker.done(_turns(maker.reports(), wanted))
        return ""

    async def _was_accepted(self, id: int) -> bool | None:
        self._step()
        return id in self.accepted if self.history_answers else None

    async def _off_loop(self, work: Callable[[], object]) -> object:
        self._step()
        result = work()
        self._step()
        return result

    # --- what came of it

    def destinations(self) -> list[str]:
        return sorted(str(stored.envelope.recipients[0].address) for stored in self.accepted.values())

    def file(self) -> FeedbackDay:
        return FeedbackDay(feedback_days.path_of(self.folder, date_of(DAY)))

    def sendings(self) -> dict[str, DaySending]:
        file = self.file()
        try:
            return {each.destination: each for each in file.sendings()}
        finally:
            file.close()

    def state(self, kind: str, domain: str) -> ReportState:
        file = self.file()
        try:
            found = file.report(kind, domain)
            assert found is not None
            return found.state
        finally:
            file.close()


async def live(place: Place, until_us: int, options: FeedbackOptions = OPTIONS) -> None:
    """Turns until then, as `FeedbackSending.run` makes them, without waiting."""
    sending = FeedbackSending(place.doors(), options)
    while place.now_us < until_us:
        pause_s = await sending.turn()
        place.now_us += int(pause_s * 1e6)


MAILS = ["a@example.com", "b@example.com", "tls@example.net"]


async def test_each_report_goes_to_each_destination(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == MAILS
    assert sorted(place.queued) == sorted(place.accepted)
    assert [uri for uri, _ in place.posted] == ["https://example.net/tls"]
    assert place.state("dmarc", "example.com") is ReportState.DONE
    assert place.state("tls", "example.org") is ReportState.NONE  # it has no record
    content = place.accepted[min(place.accepted)].content
    assert isinstance(content, bytes)
    file = place.file()
    assert file.rows_count("dmarc", "example.com") == 0  # only what was sent is kept
    file.close()


async def test_nothing_is_sent_before_the_day_is_over_and_in_the_history(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.now_us = MIDNIGHT_US - 3_600_000_000
    await live(place, MIDNIGHT_US + 590_000_000)
    assert DAY not in place.collected
    assert not place.accepted


async def test_turns_lie_within_the_spread_and_do_not_change_with_a_restart(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 700_000_000)
    file = place.file()
    due = {(each.kind, each.domain): each.due_us for each in file.reports()}
    file.close()
    begin_us = MIDNIGHT_US + int(COLLECT_AFTER_S * 1e6)
    assert all(begin_us <= each <= begin_us + int(OPTIONS.spread_s * 1e6) for each in due.values())
    assert len(set(due.values())) == 3
    for _ in range(3):
        await live(place, place.now_us + 60_000_000)
    assert place.collected.count(DAY) == 1
    await live(place, max(due.values()) + 120_000_000)
    sent = place.sendings()
    assert 0 <= sent["mailto:a@example.com"].at_us - due["dmarc", "example.com"] <= 61_000_000


async def test_days_that_were_missed_are_made_up_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.now_us = MIDNIGHT_US + 2 * 86_400_000_000 + 5_000_000_000  # the node was down
    await live(place, place.now_us + 600_000_000)
    assert place.collected == [DAY, DAY + 1, DAY + 2]
    assert place.destinations() == MAILS


async def test_without_a_name_nothing_is_done(tmp_path: Path) -> None:
    for options in (
        FeedbackOptions(), msgspec.structs.replace(OPTIONS, organization=""),
        msgspec.structs.replace(OPTIONS, contact=""), msgspec.structs.replace(OPTIONS, dmarc=False, tls=False),
    ):  # fmt: skip
        place = Place(tmp_path)
        await live(place, MIDNIGHT_US + 6 * 3_600_000_000, options)
        assert not place.collected and not place.folder.exists()


QUICK = msgspec.structs.replace(OPTIONS, spread_s=120.0)
EARLY_US = MIDNIGHT_US + 595_000_000


def _lives(place: Place) -> None:
    asyncio.run(live(place, max(place.now_us, EARLY_US) + 5 * 60_000_000, QUICK))


def _early(folder: Path, crash_at: int = -1) -> Place:
    place = Place(folder)
    place.now_us, place.spread_s, place.crash_at = EARLY_US, QUICK.spread_s, crash_at
    return place


def _steps_of_a_whole_life(folder: Path) -> int:
    place = _early(folder)
    _lives(place)
    assert place.destinations() == MAILS
    return place.steps


@pytest.mark.slow
def test_a_crash_at_any_step_sends_nothing_twice_and_leaves_nothing_out(tmp_path: Path) -> None:
    steps = _steps_of_a_whole_life(tmp_path / "whole")
    assert steps > 60
    again = 0
    for crash_at in range(1, steps + 1):
        place = _early(tmp_path / str(crash_at), crash_at)
        with pytest.raises(Crash):
            _lives(place)
        _lives(place)
        assert place.destinations() == MAILS, crash_at
        # A POST whose answer nobody has seen is sent again; its report is the same, so the server can see it.
        assert 1 <= len(place.posted) <= 2, crash_at
        assert len({(uri, report.octets) for uri, report in place.posted}) == 1, crash_at
        assert all(each.state is SendingState.SENT for each in place.sendings().values()), crash_at
        again += len(place.posted) == 2
    assert again <= 3  # only a crash between the server's answer and our note of it


def test_two_crashes_in_a_row(tmp_path: Path) -> None:
    steps = _steps_of_a_whole_life(tmp_path / "whole")
    for crash_at in range(5, steps, 7):
        place = _early(tmp_path / str(crash_at), crash_at)
        with pytest.raises(Crash):
            _lives(place)
        place.crash_at = place.steps + 3 + crash_at % 11
        try:
            _lives(place)
        except Crash:
            _lives(place)
        assert place.destinations() == MAILS, crash_at


async def test_if_the_history_cannot_be_asked_nothing_is_sent_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    path = feedback_days.path_of(place.folder, date_of(DAY))
    sent = place.sendings()["mailto:a@example.com"]
    file = FeedbackDay(path, writes=True)
    file.note(msgspec.structs.replace(sent, state=SendingState.BEGUN))
    file.close()
    place.history_answers = False
    await live(place, place.now_us + 3_600_000_000)
    assert place.destinations() == MAILS
    assert place.sendings()["mailto:a@example.com"].state is SendingState.BEGUN
    place.history_answers = True
    await live(place, place.now_us + 8 * 3_600_000_000)
    assert place.sendings()["mailto:a@example.com"].state is SendingState.SENT
    assert place.destinations() == MAILS


async def test_a_full_disk_is_no_reason_to_give_up(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fails = [Failure(FailureKind.FULL, "no space")] * 4
    await live(place, MIDNIGHT_US + 20 * 3_600_000_000)
    assert place.destinations() == MAILS


async def test_a_server_that_refuses_is_asked_again_and_given_up_after_a_day(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.post_says = ["the server answered 503"] * 2
    await live(place, MIDNIGHT_US + 12 * 3_600_000_000)
    assert place.sendings()["https://example.net/tls"].state is SendingState.SENT
    other = Place(tmp_path / "other")
    other.post_says = ["the server answered 500"] * 100
    await live(other, MIDNIGHT_US + 50 * 3_600_000_000)
    failed = other.sendings()["https://example.net/tls"]
    assert (failed.state, failed.text) == (SendingState.FAILED, "the server answered 500")
    assert 5 <= len(other.posted) <= 15
    assert other.destinations() == MAILS
    assert any("https://example.net/tls" in line for line in other.logged)


async def test_a_dns_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.zones["_smtp._tls.example.net"] = {"TXT": ["ERROR"]}
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == MAILS[:2]
    assert place.state("tls", "example.net") is ReportState.OPEN
    place.zones["_smtp._tls.example.net"] = ZONES["_smtp._tls.example.net"]
    await live(place, place.now_us + 8 * 3_600_000_000)
    assert place.destinations() == MAILS


async def test_who_is_known_does_not_wait_for_who_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.record = f"v=DMARC1; p=none; {RUA},mailto:c@taker.example"
    name = "example.com._report._dmarc.taker.example"
    place.zones[name] = {"TXT": ["ERROR"]}
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == MAILS
    place.zones[name] = {"TXT": ["v=DMARC1"]}
    await live(place, place.now_us + 8 * 3_600_000_000)
    assert place.destinations() == sorted([*MAILS, "c@taker.example"])
    assert place.state("dmarc", "example.com") is ReportState.DONE
    other = Place(tmp_path / "other")
    other.record, other.zones[name] = place.record, {"TXT": ["ERROR"]}
    await live(other, MIDNIGHT_US + 60 * 3_600_000_000)
    assert other.destinations() == MAILS
    assert other.state("dmarc", "example.com") is ReportState.DONE


async def test_the_destinations_of_a_report_are_fixed_when_it_is_planned(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fails = [Failure(FailureKind.IO, "x")] * 3
    await live(place, MIDNIGHT_US + 5 * 3_600_000_000)
    place.zones = {}
    await live(place, place.now_us + 8 * 3_600_000_000)
    assert place.destinations() == MAILS


async def test_limits(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000, msgspec.structs.replace(OPTIONS, per_day_max=2))
    assert len(place.accepted) + len(place.posted) == 2
    assert sum(line.startswith("not all reports for 2026-11-30") for line in place.logged) == 1


async def test_domains_that_the_settings_except_get_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    options = msgspec.structs.replace(OPTIONS, except_domains=("com", "ample.net"))
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000, options)
    assert place.destinations() == ["tls@example.net"]


async def test_a_report_that_is_too_large_loses_what_counts_least(tmp_path: Path) -> None:
    place = Place(tmp_path)
    rows = [DmarcRow(f"192.0.2.{number}", f"{number * 7919}.example.com", "none", True, True) for number in range(200)]
    place.rows = [("dmarc", "example.com", ENCODE(row), number) for number, row in enumerate(rows) if number]
    place.record = "v=DMARC1; p=none; rua=mailto:a@example.com!2k,mailto:b@example.com!100"
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == ["a@example.com"]
    assert "100 octets" in place.sendings()["mailto:b@example.com"].text
    (stored,) = place.accepted.values()
    assert isinstance(stored.content, bytes)
    import email

    whole = email.message_from_bytes(stored.content)
    attached = whole.get_payload()[1].get_payload(decode=True)  # type: ignore[index, union-attr]
    assert isinstance(attached, bytes) and len(attached) <= 2_048
    text = gzip.decompress(attached).decode()
    assert "<count>199</count>" in text and "<count>1</count>" not in text
    assert "records with few messages are left out" in text


async def test_old_days_are_forgotten(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    place.now_us += 40 * 86_400_000_000
    await live(place, place.now_us + 60_000_000)
    assert date_of(DAY) not in feedback_days.days(place.folder)


async def test_a_damaged_file_keeps_nothing_else_back(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.folder.mkdir()
    feedback_days.path_of(place.folder, date_of(DAY - 1)).write_bytes(b"no database" * 1_000)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == MAILS
    assert sum("damaged" in line for line in place.logged) == 1


async def test_reports_of_long_ago_are_not_sent_any_more(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 700_000_000)  # counted; then reports were switched off for a week
    place.now_us += 7 * 86_400_000_000
    await live(place, place.now_us + 6 * 3_600_000_000)
    assert not place.accepted


async def test_a_clock_that_is_set_back_makes_no_report_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    place.now_us = MIDNIGHT_US + 700_000_000
    await live(place, MIDNIGHT_US + 6 * 3_600_000_000)
    assert place.destinations() == MAILS
    assert place.collected.count(DAY) == 1


async def test_a_fault_of_ours_at_one_report_keeps_back_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where one stranger's record or row brings us to a fault, the others still get their reports."""
    place = Place(tmp_path)
    place.rows.append(("tls", "bad.example", b"\xc1 no row", 1))
    place.zones["_smtp._tls.bad.example"] = {"TXT": ["v=TLSRPTv1;rua=mailto:tls@bad.example"]}
    place.rows.append(("tls", "worse.example", ENCODE(TlsRow(TlsPolicySeen("no-policy-found", "worse.example"))), 2))
    real = feedback_sending.tls_places

    async def places(names: Any, domain: str) -> Any:
        if domain == "worse.example":
            raise KeyError(domain)
        return await real(names, domain)

    monkeypatch.setattr(feedback_sending, "tls_places", places)
    await live(place, MIDNIGHT_US + 50 * 3_600_000_000)
    assert place.destinations() == MAILS
    failed = place.sendings()["mailto:tls@bad.example"]
    assert failed.state is SendingState.FAILED and "internal error" in failed.text
    assert place.state("tls", "worse.example") is ReportState.NONE
    assert 5 <= caplog.text.count("KeyError: 'worse.example'") <= 30


async def test_mail_that_was_accepted_is_not_sent_again_after_a_fault_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path)
    faults = [KeyError("queue")]

    def to_queue(stored: Stored) -> None:
        if faults:
            raise faults.pop()

    sending = FeedbackSending(msgspec.structs.replace(place.doors(), queued=to_queue), OPTIONS)
    while place.now_us < MIDNIGHT_US + 12 * 3_600_000_000:
        pause_s = await sending.turn()
        place.now_us += int(pause_s * 1e6)
    assert place.destinations() == MAILS and "KeyError" in caplog.text
    assert all(each.state is SendingState.SENT for each in place.sendings().values())


async def test_servers_that_do_not_answer_keep_back_no_mail_and_no_other_server(tmp_path: Path) -> None:
    """Each takes a minute. A stranger with many domains must not use up the day."""
    place = Place(tmp_path)
    for number in range(90):
        domain = f"slow{number}.example"
        place.rows.append(("tls", domain, ENCODE(TlsRow(TlsPolicySeen("no-policy-found", domain))), 2))
        place.zones[f"_smtp._tls.{domain}"] = {"TXT": [f"v=TLSRPTv1;rua=https://{domain}/tls"]}
    at_us: dict[str, int] = {}
    real = place.doors()

    async def post(uri: str, report: Compressed) -> str:
        at_us.setdefault(uri, place.now_us)
        if "slow" not in uri:
            return await real.post(uri, report)
        place.now_us += 60_000_000
        return "did not answer within 60 s"

    sending = FeedbackSending(msgspec.structs.replace(real, post=post), OPTIONS)
    place.spread_s = 1_800.0
    while place.now_us < MIDNIGHT_US + 4 * 3_600_000_000:
        pause_s = await sending.turn()
        place.now_us += int(pause_s * 1e6)
    assert place.destinations() == MAILS
    file = place.file()
    due_us = {each.domain: each.due_us for each in file.reports()}
    file.close()
    late = {
        str(each.envelope.recipients[0].address): each.envelope.accepted_us
        - due_us[each.envelope.recipients[0].address.domain]
        for each in place.accepted.values()
    }
    assert all(each < 6 * 60_000_000 for each in late.values()), late
    assert len(at_us) == 91
