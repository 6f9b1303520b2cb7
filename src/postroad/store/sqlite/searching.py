"""Finds events by queue id, Message-ID or address, in the day files and in the journals that are not yet moved there.

What always holds: an event is given once, wherever it is at that moment: the journal is read first, then the day files.
Rows of the journal up to the mark of a day file are in this file by then. It works whether a node runs or not, and
needs only the right to read.

How it fails: a file that cannot be read is left out, and named in `faults`. Not here: writing (`store.sqlite.history`).
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from postroad.mail import identifier
from postroad.mail.account import canonical_account
from postroad.mail.event import Accepted, Authenticated, Event, Expanded, Refused, Rewritten
from postroad.store.sqlite import codec, dayfile, schema
from postroad.store.sqlite.dayfile import DAY_US, DayReader
from postroad.store.sqlite.history import day_files
from postroad.store.sqlite.journal import JournalRow
from postroad.store.sqlite.reader import shard_files

_ALL: Final = (1 << 63) - 1


class HistoryReader:
    """All events that are kept. Each call looks at the files as they are now."""

    def __init__(self, history_directory: Path, spool_directory: Path) -> None:
        self._history = history_directory
        self._spool = spool_directory
        self.faults: list[str] = []

    def events(self, id: int) -> list[Event]:
        """The events of one message, in the order of time. All days are searched: if the clock was set back, later
        events stand in the file of an earlier day."""
        found = self._search(dayfile.id_key(id), codec.id_octets(id), 0, newest_first=False)
        return sorted((event for day in found for event in day if event.id == id), key=_time)

    def reports(self, id: int) -> list[int]:
        """The queue ids of the messages that report on this one (or were split from it)."""
        found = self._search(dayfile.report_key(id), codec.id_octets(id), 0, newest_first=False)
        return sorted({each.id for day in found for each in day if isinstance(each, Accepted) and each.parent == id})

    def find(
        self,
        *,
        message_id: str = "",
        address: str = "",
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> list[int]:
        """Queue ids of messages, the newest first: with this Message-ID, with this sender or recipient, from this
        client (an IP address), or submitted by this account; one of the four, in upper or lower case. `until_us`: only
        those made before then; 0 for all. By client and account it finds only events since the history keeps keys for
        them."""
        if message_id:
            wanted = message_id.strip("<>").lower()
            matches: Callable[[Event], bool] = lambda event: _has_message_id(event, wanted)  # noqa: E731
            name = dayfile.message_id_key(message_id)
        elif address:
            wanted = address.lower()
            matches = lambda event: _has_address(event, wanted)  # noqa: E731
            name = dayfile.key(address)
        else:
            matches = lambda event: isinstance(event, Accepted) and _is_of(event, client, account)  # noqa: E731
            name = dayfile.client_key(client) if client else dayfile.account_key(account)
        found: set[int] = set()
        for day in self._search(name, b"", since_us, newest_first=True):
            ids = {event.id for event in day if event.id and event.at_us >= since_us and matches(event)}
            found.update(id for id in ids if not 0 < until_us <= identifier.made_us(id))
            if len(found) >= limit:
                break
        return sorted(found, key=identifier.made_us, reverse=True)[:limit]

    def refusals(
        self,
        address: str = "",
        *,
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> list[Refused | Authenticated]:
        """Commands that were refused, the newest first: with this sender or recipient, of this client, or of this
        account, one of the three; and the log-ins of the client or the account that succeeded."""
        wanted = address.lower()
        if address:
            name = dayfile.key(address)
        else:
            name = dayfile.client_key(client) if client else dayfile.account_key(account)
        found: list[Refused | Authenticated] = []
        for day in self._search(name, b"", since_us, newest_first=True):
            found += [
                event
                for event in day
                if isinstance(event, Refused | Authenticated)
                and event.at_us >= since_us
                and not 0 < until_us <= event.at_us
                and (_names_address(event, wanted) if address else _is_of(event, client, account))
            ]
            if len(found) >= limit:
                break
        return sorted(found, key=_time, reverse=True)[:limit]

    def first_us(self) -> int:
        """The beginning of the oldest day that is kept, in microseconds since 1970; 0 if there is none yet."""
        days = sorted(day for day, _ in day_files(self._history))
        return int(datetime.datetime.fromisoformat(f"{days[0]}T00:00:00+00:00").timestamp()) * 1_000_000 if days else 0

    def unmoved(self) -> int:
        """Journal rows that no day file has yet."""
        rows = self._journal(b"", 0)
        marks = self._marks((shard, row) for shard, found in rows.items() for row in found)
        return sum(1 for shard, found in rows.items() for row in found if row[0] > marks.get((shard, _day(row)), 0))

    # --- where to look

    def _search(
        self, name: int, needle: bytes, since_us: int, *, newest_first: bool
    ) -> Iterator[list[Event]]:
        """Gives what may match, day by day; the rows of the journal come with the days to which they belong."""
        journal = self._journal(needle, since_us)
        days: dict[str, list[Path]] = {}
        first = dayfile.path_of(self._history, max(0, since_us), 0).name[:10]
        for day, path in day_files(self._history):
            if day >= first:
                days.setdefault(day, []).append(path)
        waiting: dict[str, list[tuple[int, JournalRow]]] = {}
        for number, rows in journal.items():
            for row in rows:
                waiting.setdefault(_day(row), []).append((number, row))
        for day in sorted({*days, *waiting}, reverse=newest_first):
            marks: dict[int, int] = {}
            events: list[Event] = []
            for path in days.get(day, ()):
                self._read_day(path, name, marks, events)
            for number, row in waiting.get(day, ()):
                if row[0] > marks.get(number, 0):
                    events += _decoded(row)
            yield events

    def _read_day(self, path: Path, name: int, marks: dict[int, int], events: list[Event]) -> None:
        number = int(path.name.split(".")[1])
        try:
            connection = schema.connect_reader(path)
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.close()  # it is just being made, or the disk was full then: all is in the journal still
                return
            reader = DayReader(connection)
        except sqlite3.Error as error:
            self.faults.append(f"{path}: {error}")
            return
        try:
            marks[number] = reader.mark
            events += reader.events(name)
        except sqlite3.Error as error:
            self.faults.append(f"{path}: {error}")
        finally:
            reader.close()

    def _journal(self, needle: bytes, since_us: int) -> dict[int, list[JournalRow]]:
        """The rows of all journals that hold the octets `needle`, by shard."""
        found: dict[int, list[JournalRow]] = {}
        condition = " AND instr(events, ?) > 0" if needle else ""
        values = (since_us, needle) if needle else (since_us,)
        for number, path in shard_files(self._spool):
            try:
                connection = schema.connect_reader(path)
            except sqlite3.Error as error:
                self.faults.append(f"{path}: {error}")
                continue
            try:
                found[number] = connection.execute(
                    f"SELECT seq, at_us, events FROM journal WHERE at_us >= ?{condition} ORDER BY seq", values
                ).fetchall()
            except sqlite3.Error as error:
                self.faults.append(f"{path}: {error}")
            finally:
                connection.close()
        return found

    def _marks(self, rows: Iterable[tuple[int, JournalRow]]) -> dict[tuple[int, str], int]:
        marks: dict[tuple[int, str], int] = {}
        for shard, row in rows:
            place = (shard, _day(row))
            if place not in marks:
                path = dayfile.path_of(self._history, row[1], shard)
                found: dict[int, int] = {}
                if path.exists():
                    self._read_day(path, _ALL, found, [])
                marks[place] = found.get(shard, 0)
        return marks


def _day(row: JournalRow) -> str:
    return dayfile.path_of(Path(), row[1] // DAY_US * DAY_US, 0).name[:10]


def _decoded(row: JournalRow) -> list[Event]:
    try:
        return codec.decode_journal(row[2])
    except codec.Undecodable:
        return []


def _time(event: Event) -> int:
    return event.at_us


def _has_message_id(event: Event, wanted: str) -> bool:
    return isinstance(event, Accepted) and event.message_id.strip("<>").lower() == wanted


def _has_address(event: Event, wanted: str) -> bool:
    match event:
        case Accepted():
            return event.reverse_path.lower() == wanted or any(each.lower() == wanted for each in event.recipients)
        case Expanded():
            return event.recipient.lower() == wanted or any(each.lower() == wanted for each in event.into)
        case Rewritten():
            return event.sender.lower() == wanted
        case _:
            return False


def _names_address(event: Refused | Authenticated, wanted: str) -> bool:
    if isinstance(event, Authenticated):
        return False
    names = (event.reverse_path, event.recipient, *event.recipients)
    return any(each.lower() == wanted for each in names if each)


def _is_of(event: Accepted | Refused | Authenticated, client: str, account: str) -> bool:
    if client:
        return event.peer.address.lower() == client.lower()
    return canonical_account(dayfile.account_of(event)).lower() == canonical_account(account).lower()
