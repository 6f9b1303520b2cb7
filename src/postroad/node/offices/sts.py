"""The supervisor's office of MTA-STS: the policies of remote domains that this node knows, and when they are fetched.

RFC 8461 §3.3, §5.1, §10.2. The office fetches nothing itself: it has a worker do so, and tells all that wait for it
(docs/decisions/0097-sts-office.md).

What always holds: a domain is asked by one worker at a time; after a failure it is not asked again before `RETRY_S`,
for the same id of its record; a policy stays in force until it expires, whatever else fails; all kept policies together
have at most `entries_max` entries and `size_max` octets, of which those go first that mail has not been sent by for
the longest time. A policy is fetched anew about once a day, at a random time, as long as mail is sent by it.

How it fails: if a worker dies or says nothing, another one is asked, or the fetch has failed. A fetch that failed is in
the log: as a warning if a policy is in force that could not be renewed (§10.2), unless its mode is `none`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Final

import msgspec

from postroad.mail.numbers import counted
from postroad.mail.tls_policy import StsAnswer, StsMode, StsPolicy, TlsFailure
from postroad.node.frames import FetchSts, StsChanged, StsTold, ToWorker
from postroad.store.sts import StsEntry, StsStore
from postroad.trust.sts import policy_url
from postroad.trust.sts_fetch import StsFetched, StsOptions

DAY_S: Final = 86_400
RETRY_S: Final = 300  # RFC 8461 §3.3: five minutes or longer
RETRY_MAX_S: Final = 6 * 3_600
REFETCH_S: Final = 10  # a policy that was just fetched is not fetched again, though the id is another one already
REFRESH_MIN_S: Final = 3_600  # a policy that ends sooner is fetched again when mail is sent
UNUSED_S: Final = 30 * DAY_S  # a policy by which nothing was sent for so long is not renewed any more
FAILURES_MAX: Final = 10_000  # domains of which is remembered that the last fetch failed
REFRESHES_MAX: Final = 4  # that are under way at a time
NONE_S: Final = 3_600  # how long a worker believes that there is no policy, if nothing is told
LOOK_S: Final = 10
WORKER_S: Final = 30  # how much longer than a fetch a worker may be silent


class _Failure(msgspec.Struct, frozen=True):
    """The last fetch of a domain, for this id, has failed. `count`: how many did in a row."""

    id: str
    retry_us: int
    count: int
    failure: TlsFailure
    text: str


class _Flight(msgspec.Struct):
    """A fetch under way. `waiting`: workers with the ids that they have seen."""

    question: int
    domain: str
    id: str
    worker: int
    until_us: int
    waiting: list[tuple[int, str]]


class StsOffice:
    """`send(worker, frame)`: to one worker; `workers()`: the numbers of those that serve. `store()`: opens what the
    disk keeps, when policies are first of use; None: nothing is kept. `disk(work)`: has work done that may take time,
    one after another."""

    def __init__(
        self,
        options: Callable[[], StsOptions],
        send: Callable[[int, ToWorker], None],
        workers: Callable[[], Sequence[int]],
        now_us: Callable[[], int],
        say: Callable[[str, str], None],
        chance: Random,
        store: Callable[[], StsStore | None] = lambda: None,
        disk: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        self._options = options
        self._send, self._workers = send, workers
        self._now_us, self._say, self._chance, self._disk = now_us, say, chance, disk
        self._open_store, self._opened = store, False
        self._store: StsStore | None = None
        self._entries: OrderedDict[str, StsEntry] = OrderedDict()  # the one that was used last at the end
        self._size = 0
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._flights: dict[str, _Flight] = {}  # by domain
        self._question = 0
        self._next_look_us = 0

    # ---- Workers

    def ask(self, worker: int, domain: str, id: str) -> None:
        """What holds for a domain? `id`: of its record as this worker has it, "" for none. Answered by StsTold."""
        self._load()
        now_us = self._now_us()
        entry = self._entry(domain, now_us)
        if entry is not None:
            self._use(entry, now_us)
        if not id or (entry is not None and self._serves(entry, id, now_us)):
            self._tell(worker, domain, id, now_us)
            return
        failure = self._failures.get(domain)
        if failure is not None and failure.id == id and now_us < failure.retry_us:
            self._tell(worker, domain, id, now_us)
            return
        flight = self._flights.get(domain)
        if flight is None:
            self._begin(worker, domain, id, [(worker, id)])
        else:
            flight.waiting.append((worker, id))

    def _serves(self, entry: StsEntry, id: str, now_us: int) -> bool:
        return entry.policy.id == id or 0 <= now_us - entry.fetched_us < REFETCH_S * 1_000_000

    def fetched(self, worker: int, question: int, found: StsFetched) -> None:
        """A worker has done what FetchSts asked for."""
        flight = next((each for each in self._flights.values() if each.question == question), None)
        if flight is not None and flight.worker == worker:
            self._end(flight, found)

    def worker_died(self, number: int) -> None:
        """What it was fetching is fetched by another one, if somebody waits for it."""
        for flight in list(self._flights.values()):
            flight.waiting = [each for each in flight.waiting if each[0] != number]
            if flight.worker != number:
                continue
            del self._flights[flight.domain]
            if flight.waiting:
                self._begin(flight.waiting[0][0], flight.domain, flight.id, flight.waiting)

    # ---- Now and then

    def look(self) -> None:
        """To be called every second."""
        now_us = self._now_us()
        if 0 <= self._next_look_us - now_us <= LOOK_S * 1_000_000:  # more: the clock was set back
            return
        self._next_look_us = now_us + LOOK_S * 1_000_000
        if not self._options().is_on and not self._opened:
            return
        self._load()
        for flight in [each for each in self._flights.values() if each.until_us <= now_us]:
            text = f"{policy_url(flight.domain)}: the worker that was to fetch it did not answer"
            self._end(flight, StsFetched(None, TlsFailure.STS_POLICY_FETCH_ERROR, text))
        for entry in [each for each in self._entries.values() if each.expires_us <= now_us]:
            self._forget(entry)
            if entry.policy.mode is not StsMode.NONE:
                domain = entry.policy.domain
                self._say("info", f"the MTA-STS policy of {domain} has expired, and is not in force any more")
        self._refresh(now_us)

    def _refresh(self, now_us: int) -> None:
        """RFC 8461 §10.2: before they expire, and whatever the records say."""
        workers = self._workers()
        if not workers or not self._options().is_on:
            return
        used_us = now_us - UNUSED_S * 1_000_000
        due = [
            each for each in self._entries.values()
            if each.refresh_us <= now_us and each.used_us > used_us and each.policy.mode is not StsMode.NONE
            and each.policy.domain not in self._flights
        ]  # fmt: skip
        free = REFRESHES_MAX - sum(not flight.waiting for flight in self._flights.values())
        for entry in sorted(due, key=lambda each: each.expires_us)[: max(0, free)]:
            self._begin(self._chance.choice(workers), entry.policy.domain, "", [])

    # ---- Fetches

    def _begin(self, worker: int, domain: str, id: str, waiting: list[tuple[int, str]]) -> None:
        self._question += 1
        until_us = self._now_us() + int((self._options().time_s + WORKER_S) * 1_000_000)
        self._flights[domain] = _Flight(self._question, domain, id, worker, until_us, waiting)
        self._send(worker, FetchSts(self._question, domain, id))

    def _end(self, flight: _Flight, found: StsFetched) -> None:
        del self._flights[flight.domain]
        now_us = self._now_us()
        before = self._entry(flight.domain, now_us)
        if found.policy is None:
            self._failed(flight, found, before, now_us)
        else:
            self._took(flight, found.policy, found.notes, before, now_us)
        told: set[tuple[int, str]] = set()
        for worker, id in flight.waiting:
            if (worker, id) not in told:
                told.add((worker, id))
                self._tell(worker, flight.domain, id, now_us)

    def _took(
        self, flight: _Flight, policy: StsPolicy, notes: tuple[str, ...], before: StsEntry | None, now_us: int
    ) -> None:
        if not policy.id and before is not None:  # it was renewed, and its record is not to be had
            policy = msgspec.structs.replace(policy, id=before.policy.id)
        self._failures.pop(flight.domain, None)
        used_us = before.used_us if before is not None and not flight.waiting else now_us
        self._keep(StsEntry(policy, now_us, self._next_refresh_us(policy, now_us), used_us))
        if before is not None and before.policy == policy:
            return
        for number in self._workers():
            self._send(number, StsChanged(flight.domain))
        passed_over = f"; passed over: {'; '.join(notes)}" if notes else ""
        hosts = f" for {', '.join(policy.mx[:5])}{' and others' if len(policy.mx) > 5 else ''}" if policy.mx else ""
        self._say(
            "info",
            f"the MTA-STS policy of {policy.domain} is {policy.mode.value}{hosts}, for {policy.max_age_s} s (id "
            f"{policy.id or 'not known'}){passed_over}",
        )

    def _next_refresh_us(self, policy: StsPolicy, now_us: int) -> int:
        """Within a day and before its end, at a random time, so that the fetches of many domains spread."""
        longest_s = min(DAY_S, policy.max_age_s / 2)
        return now_us + int(max(longest_s * (0.5 + self._chance.random() / 2), REFRESH_MIN_S) * 1_000_000)

    def _failed(self, flight: _Flight, found: StsFetched, before: StsEntry | None, now_us: int) -> None:
        domain, last = flight.domain, self._failures.pop(flight.domain, None)
        count = 1 + (last.count if last is not None and last.id == flight.id else 0)
        wait_s = min(RETRY_S * 2 ** min(count - 1, 10), RETRY_MAX_S) * (1 + self._chance.random() / 4)
        retry_us = now_us + int(wait_s * 1_000_000)
        while len(self._failures) >= FAILURES_MAX:
            self._failures.popitem(last=False)
        self._failures[domain] = _Failure(flight.id, retry_us, count, found.failure, found.text)
        if before is None:
            self._say("info", f"{domain} announces an MTA-STS policy that cannot be had, so none holds: {found.text}")
            return
        again_us = max(before.refresh_us, retry_us)
        self._keep(msgspec.structs.replace(before, refresh_us=again_us, failures=before.failures + 1))
        if before.policy.mode is not StsMode.NONE:
            left_s = (before.expires_us - now_us) // 1_000_000
            times = counted(before.failures + 1, "time")
            self._say(
                "warning",
                f"the MTA-STS policy of {domain} could not be renewed ({times} in a row): {found.text}; the one that "
                f"is known stays in force for {left_s // DAY_S} d {left_s % DAY_S // 3_600} h",
            )

    # ---- Answers

    def _tell(self, worker: int, domain: str, id: str, now_us: int) -> None:
        entry, failure = self._entry(domain, now_us), self._failures.get(domain)
        until_us = now_us + NONE_S * 1_000_000
        answer = StsAnswer()
        if entry is not None:
            at = _date(entry.fetched_us)
            answer = StsAnswer(entry.policy, source=f"{policy_url(domain)}, fetched {at}")
            until_us = min(now_us + DAY_S * 1_000_000, entry.expires_us)
        if failure is not None and _concerns(failure, entry, id):
            answer = msgspec.structs.replace(answer, failure=failure.failure, text=failure.text)
            until_us = min(until_us, max(failure.retry_us, now_us + 1_000_000))
        elif entry is not None and id and entry.policy.id != id:
            until_us = min(until_us, entry.fetched_us + REFETCH_S * 1_000_000)
        self._send(worker, StsTold(domain, id, answer, until_us, entry.expires_us if entry is not None else 0))

    # ---- What is kept

    def _load(self) -> None:
        """Once: takes the policies that were known when the node stopped."""
        if self._opened:
            return
        self._opened, self._store, now_us = True, self._open_store(), self._now_us()
        for entry in self._store.entries() if self._store is not None else ():
            fetched_us = min(entry.fetched_us, now_us)  # the clock was set back
            kept = msgspec.structs.replace(entry, fetched_us=fetched_us, refresh_us=max(entry.refresh_us, now_us))
            self._put(kept)
            if kept.expires_us <= now_us:  # meanwhile
                self._forget(kept)
        self._bound()

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            self._disk(store.close)

    def _entry(self, domain: str, now_us: int) -> StsEntry | None:
        """The one of a domain, if it is in force."""
        entry = self._entries.get(domain)
        return entry if entry is not None and entry.expires_us > now_us else None

    def _use(self, entry: StsEntry, now_us: int) -> None:
        self._entries.move_to_end(entry.policy.domain)
        if now_us - entry.used_us > DAY_S * 1_000_000:
            self._keep(msgspec.structs.replace(entry, used_us=now_us))

    def _keep(self, entry: StsEntry) -> None:
        self._put(entry)
        store = self._store
        if store is not None:
            self._disk(lambda: store.put(entry))
        self._bound()

    def _put(self, entry: StsEntry) -> None:
        domain = entry.policy.domain
        before = self._entries.get(domain)
        self._size += entry.size - (before.size if before is not None else 0)
        self._entries[domain] = entry

    def _bound(self) -> None:
        options = self._options()
        while len(self._entries) > max(1, options.entries_max) or (
            self._size > options.size_max and len(self._entries) > 1
        ):
            self._forget(next(iter(self._entries.values())))

    def _forget(self, entry: StsEntry) -> None:
        domain = entry.policy.domain
        del self._entries[domain]
        self._size -= entry.size
        store = self._store
        if store is not None:
            self._disk(lambda: store.remove(domain))
        for number in self._workers():
            self._send(number, StsChanged(domain))


def _concerns(failure: _Failure, entry: StsEntry | None, id: str) -> bool:
    """Whether a failure is to be told beside this entry, to a worker that has seen this id."""
    if entry is None:
        return bool(id) and failure.id == id
    return entry.policy.mode is not StsMode.NONE  # RFC 8461 §6


def _date(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
