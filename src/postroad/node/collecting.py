"""A process that counts a day for the reports to other domains, and ends: it reads the whole history of that day.

A worker starts it once a day (`node.wiring.feedback`), with what it must know as JSON on its standard input. It has the
lowest priority and a memory of its own, so that the mail of that moment does not wait for it. What always holds: the
file of the day appears when it is whole, or not at all; a day that has its file is not counted again.

How it fails: it says why on standard output, and exits with 1.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from postroad.report.feedback import DAY_S, FeedbackKind, date_of, share_of_spread
from postroad.report.feedback_counts import ROWS_MAX, FeedbackCounts
from postroad.store import feedback_days
from postroad.store.feedback_days import DayMaker, DayReport, FeedbackDay
from postroad.store.sqlite.day_events import TooEarly, day_events

DAYS_BACK: Final = 7  # of which the mail with reports is known: so long it may be tried


class Collection(msgspec.Struct, frozen=True):
    """What is counted. `day`: since 1970. `spread_s`: within which time after the day the reports have their turns, and
    `after_s`: how long after its end the first one. `hostname`: makes the turns of several nodes differ."""

    state_dir: str
    day: int
    kinds: tuple[FeedbackKind, ...]
    mailboxes: tuple[str, ...]
    hostname: str
    spread_s: float
    after_s: float
    delimiters: str = ""


def collect(wanted: Collection) -> str:
    """Makes the file of the day. "" or why it could not."""
    state_dir = Path(wanted.state_dir)
    folder = state_dir / feedback_days.FOLDER
    date = date_of(wanted.day)
    if feedback_days.path_of(folder, date).exists():
        return ""
    try:
        maker = DayMaker(folder, date)
    except FileExistsError:  # another process was quicker
        return ""
    except BlockingIOError:
        return "another process still counts a day"
    except (OSError, sqlite3.Error) as error:
        return f"{folder}: {error}"
    try:
        counts = FeedbackCounts(wanted.kinds, wanted.mailboxes, _own_mail(folder, wanted.day), wanted.delimiters)
        for events in day_events(state_dir / "history", state_dir / "spool", wanted.day):
            counts.take(events)
            if len(counts) >= ROWS_MAX:
                _keep(maker, counts)
        _keep(maker, counts)
        maker.done(_turns(maker.reports(), wanted))
    except Exception as error:
        with contextlib.suppress(OSError, sqlite3.Error):
            maker.abandon()
        if not isinstance(error, TooEarly | OSError | sqlite3.Error):
            raise
        return str(error)
    return ""


def _keep(maker: DayMaker, counts: FeedbackCounts) -> None:
    rows, records = counts.taken()
    maker.add(rows)
    maker.set_records(records)


def _turns(reports: Sequence[tuple[str, str]], wanted: Collection) -> list[DayReport]:
    """Each report with its moment in the first hours after the day."""
    begin_s = (wanted.day + 1) * DAY_S + wanted.after_s
    found: list[DayReport] = []
    for kind, domain in reports:
        share = share_of_spread(FeedbackKind(kind), domain, wanted.day, wanted.hostname)
        found.append(DayReport(kind, domain, int((begin_s + share * wanted.spread_s) * 1e6)))
    return found


def _own_mail(folder: Path, day: int) -> list[int]:
    """The queue ids of reports of ours that may still have been tried on that day. A file that is damaged names none:
    it must not keep back the reports of later days."""
    found: list[int] = []
    for each in range(day - DAYS_BACK, day):
        path = feedback_days.path_of(folder, date_of(each))
        if path.exists():
            file = FeedbackDay(path)
            try:
                found += file.mail_ids()
            except sqlite3.DatabaseError as error:
                if not feedback_days.is_damage(error):
                    raise
            finally:
                file.close()
    return found


def main() -> int:
    os.nice(19)
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Collection)
    problem = collect(wanted)
    if problem:
        print(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
