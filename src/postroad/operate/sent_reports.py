"""What the node has reported to other domains, read from the files of the days (`store.feedback_days`).

It works whether the node runs or not. How it fails: a file that cannot be read is named in `SentReports.faults`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail import identifier
from postroad.mail.address import canonical_domain
from postroad.store import feedback_days
from postroad.store.feedback_days import FeedbackDay, ReportState, SendingState


class SentReport(msgspec.Struct, frozen=True):
    """One report to one destination. `day`: on which it reports. `state`: waiting, begun, sent, failed, or not wanted.
    `at_us`: when it was sent or given up, else when it has its next turn, 0 if never. `id`: the queue id of its mail,
    "" if there is none. `text`: why it is in this state, if that is to be said."""

    day: str
    kind: str
    domain: str
    destination: str
    state: str
    at_us: int = 0
    id: str = ""
    size: int = 0
    text: str = ""


class SentReports(msgspec.Struct, frozen=True):
    reports: tuple[SentReport, ...] = ()
    faults: tuple[str, ...] = ()


NOT_WANTED: Final = "not wanted"


def sent_reports(state_dir: Path, domain: str = "", since: str = "", *, unwanted: bool = False) -> SentReports:
    """The reports on days from `since` on (``2026-11-30``, "" for all), the oldest day first. `unwanted`: also domains
    that get no report. Raises PermissionError."""
    folder = state_dir / feedback_days.FOLDER
    wanted = _canonical(domain)
    found: list[SentReport] = []
    faults: list[str] = []
    for day in feedback_days.days(folder):
        if day < since:
            continue
        try:
            found += [each for each in _of_day(folder, day, unwanted=unwanted) if not wanted or each.domain == wanted]
        except sqlite3.Error as error:
            faults.append(f"{feedback_days.path_of(folder, day)}: {error}")
    return SentReports(tuple(found), tuple(faults))


def _of_day(folder: Path, day: str, *, unwanted: bool) -> list[SentReport]:
    file = FeedbackDay(feedback_days.path_of(folder, day))
    try:
        found = [
            SentReport(
                day, each.kind, each.domain, each.destination, each.state.value,
                each.due_us if each.state is SendingState.WAITING else each.at_us,
                identifier.text(each.id) if each.id else "", each.size, each.text,
            )
            for each in file.sendings()
        ]  # fmt: skip
        for report in file.reports():
            if report.state is ReportState.OPEN:
                found.append(
                    SentReport(day, report.kind, report.domain, "", "waiting", report.due_us, text=report.text)
                )
            elif report.state is ReportState.NONE and unwanted:
                found.append(SentReport(day, report.kind, report.domain, "", NOT_WANTED, text=report.text))
    finally:
        file.close()
    return found


def _canonical(domain: str) -> str:
    try:
        return canonical_domain(domain) if domain else ""
    except ValueError:
        return domain
