"""Counts for the whole node that each worker knows without asking: sessions at a time, and events within a time.

A worker counts its own and tells the supervisor, `TELL_S` after the first change, the counts that have changed
(`Tally`). The supervisor adds them up (`TallyOffice`) and tells each worker what the others have, as soon as the sum
has come to half of a limit. So nothing on the way of a message waits, and the error is bounded: a limit can be exceeded
only by what the other workers let in within `TELL_S` and the time that two frames take, a fraction of a second. Frames
carry whole counts, not differences: a frame that is lost or repeated does no harm.

Events within a time are counted in windows of that length by the wall clock. The sum of the last `length_s` is that of
this window, plus the part of the window before that still belongs to the time. What always holds: clients that are gone
take no memory after two windows; a window has at most `KEYS_MAX` keys, then it is closed early; a worker's death takes
its sessions out of the sum, but not what it had counted within the time.

A key is a letter for the kind of count, and the name of the client or account that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

SESSIONS: Final = "s"  # at a time; with no more behind it, those of all clients
CONNECTIONS: Final = "c"
MESSAGES: Final = "m"
RECIPIENTS: Final = "r"
OFFENCES: Final = "o"  # sessions that were ended for what the client did
FAILURES: Final = "f"  # of AUTH, by client and by network
ACCOUNT_FAILURES: Final = "a"  # of AUTH, by account
REPORTS: Final = "d"  # to strangers, by address; with no more behind it, those of all
LOGINS: Final = "l"  # AUTH that was right, by client
QUESTIONS: Final = "q"  # to next hops about recipients, by the network of the client
DOMAIN_QUESTIONS: Final = "w"  # the same, by the domain of the recipient
UNDER_WAY: Final = "u"  # such questions at a time

TELL_S: Final = 0.1
KEYS_MAX: Final = 65_536
_GONE: Final = -1  # the number under which counts of workers that died are kept

Counts = dict[str, int]
TallyFrame = tuple[Counts, tuple[tuple[int, Counts, Counts], ...]]
"""Sessions; of each window its number, its counts and, to workers, those of the window before."""


class Window:
    """Counts within the last `length_s`, of this worker and, as far as it was told, of the others."""

    def __init__(self, length_s: float) -> None:
        self.length_us = max(1, int(length_s * 1e6))
        self.number = -1
        self.own: Counts = {}
        self.others: Counts = {}
        self._own_before: Counts = {}
        self._others_before: Counts = {}
        self.changed: set[str] = set()

    def turn(self, now_us: int) -> None:
        """Begin the window of this moment."""
        number = now_us // self.length_us
        if number != self.number:
            follows = number == self.number + 1
            self._own_before, self.own = (self.own if follows else {}), {}
            self._others_before, self.others = (self.others if follows else {}), {}
            self.changed.clear()
            self.number = number

    def add(self, key: str, amount: int, now_us: int) -> float:
        """Count; the sum of all workers."""
        self.turn(now_us)
        if len(self.own) >= KEYS_MAX and key not in self.own:
            self._own_before, self.own = self.own, {}
            self.changed.clear()
        self.own[key] = self.own.get(key, 0) + amount
        self.changed.add(key)
        return self.total(key, now_us)

    def total(self, key: str, now_us: int) -> float:
        self.turn(now_us)
        now = self.own.get(key, 0) + self.others.get(key, 0)
        before = self._own_before.get(key, 0) + self._others_before.get(key, 0)
        if not before:
            return now
        return now + before * (1 - now_us % self.length_us / self.length_us)

    def hear(self, number: int, counts: Counts, before: Counts, now_us: int) -> None:
        self.turn(now_us)
        if number == self.number:
            self.others.update(counts)
            self._others_before.update(before)
        elif number + 1 == self.number:  # nobody has counted in this window yet
            self._others_before.update(counts)

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            for counts in (self.own, self.others, self._own_before, self._others_before):
                counts.pop(key, None)


class Tally:
    """A worker's side. `tell(frame)` reaches the office; `later(seconds, call)` is the loop's."""

    def __init__(
        self,
        window_lengths_s: tuple[float, ...],
        tell: Callable[[TallyFrame], None],
        later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self.windows = tuple(map(Window, window_lengths_s))
        self._tell = tell
        self._later = later
        self._own: Counts = {}
        self._others: Counts = {}
        self._changed: set[str] = set()
        self._telling = False

    def sessions(self, key: str) -> int:
        count = self._own.get(key, 0)
        return count + self._others.get(key, 0) if self._others else count

    def came(self, keys: tuple[str, ...]) -> None:
        """A session that counts for these keys."""
        own = self._own
        for key in keys:
            own[key] = own.get(key, 0) + 1
        self._changed.update(keys)
        if not self._telling:
            self._soon()

    def went(self, keys: tuple[str, ...]) -> None:
        own = self._own
        for key in keys:
            count = own[key] - 1
            if count:
                own[key] = count
            else:
                del own[key]
        self._changed.update(keys)
        if not self._telling:
            self._soon()

    def count(self, window: int, key: str, now_us: int, amount: int = 1) -> float:
        total = self.windows[window].add(key, amount, now_us)
        if not self._telling:
            self._soon()
        return total

    def hear(self, told: TallyFrame, now_us: int) -> None:
        """What the others have, by the office."""
        sessions, windows = told
        for key, count in sessions.items():
            if count:
                self._others[key] = count
            else:
                self._others.pop(key, None)
        for window, (number, counts, before) in zip(self.windows, windows, strict=False):
            window.hear(number, counts, before, now_us)

    def forget(self, keys: Iterable[str]) -> None:
        """What was counted within a time for these keys is as if it had not been."""
        keys = tuple(keys)
        for window in self.windows:
            window.forget(keys)

    def take(self, window_lengths_s: tuple[float, ...]) -> None:
        """Settings; a window of another length begins anew."""
        self.windows = tuple(
            window if window.length_us == Window(length_s).length_us else Window(length_s)
            for window, length_s in zip(self.windows, window_lengths_s, strict=True)
        )

    def _soon(self) -> None:
        self._telling = True
        self._later(TELL_S, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        sessions = {key: self._own.get(key, 0) for key in self._changed}
        self._changed.clear()
        windows: list[tuple[int, Counts, Counts]] = []
        for window in self.windows:
            counts = {key: window.own[key] for key in window.changed if key in window.own}
            windows.append((window.number, counts, {}))
            window.changed.clear()
        self._tell((sessions, tuple(windows)))


Table = dict[str, dict[int, int]]  # key → worker → count


class TallyOffice:
    """The supervisor's side.

    `send(worker, told)`: what the others have. `limit(key)`: the limit of a key, 0 for none. `over(key)`: the sum of
    what was counted within a time has come to its limit.
    """

    def __init__(
        self,
        windows: int,
        send: Callable[[int, TallyFrame], None],
        limit: Callable[[str], int],
        over: Callable[[str], None],
    ) -> None:
        self._send = send
        self._limit = limit
        self._over = over
        self._workers: set[int] = set()
        self._sessions: dict[str, dict[int, int]] = {}
        self._known: set[str] = set()  # keys of sessions of which workers were told
        self._numbers = [-1] * windows
        self._now: list[Table] = [{} for _ in range(windows)]
        self._before: list[Table] = [{} for _ in range(windows)]

    def worker_up(self, number: int) -> None:
        """A worker begins: it hears what it should know."""
        self._workers.add(number)
        sessions = {key: _others(self._sessions[key], number) for key in self._known if key in self._sessions}
        near = [[key for key in {**now, **before} if self._is_near(key, place)]
                for place, (now, before) in enumerate(zip(self._now, self._before, strict=True))]  # fmt: skip
        self._send(number, (sessions, self._windows_for(number, near)))

    def worker_died(self, number: int) -> None:
        self._workers.discard(number)
        changed = [key for key, counts in self._sessions.items() if number in counts]
        for key in changed:
            del self._sessions[key][number]
        for table in (*self._now, *self._before):
            for counts in table.values():
                if number in counts:
                    counts[_GONE] = counts.get(_GONE, 0) + counts.pop(number)
        self._spread(number, changed, [()] * len(self._now))

    def take_counts(self, worker: int, told: TallyFrame) -> None:
        """The counts of a worker that have changed."""
        sessions, windows = told
        for key, count in sessions.items():
            counts = self._sessions.setdefault(key, {})
            if count:
                counts[worker] = count
            else:
                counts.pop(worker, None)
        for place, (number, changed, _) in enumerate(windows):
            if changed:
                self._add(place, number, worker, changed)
        self._spread(worker, sessions, [changed for _, changed, _ in windows])
        for place, (number, changed, _) in enumerate(windows):
            if number == self._numbers[place]:
                for key in changed:
                    limit = self._limit(key)
                    if limit and self._total(key, place) >= limit:
                        self._over(key)

    def forget(self, keys: Iterable[str]) -> None:
        for key in tuple(keys):
            for table in (*self._now, *self._before):
                table.pop(key, None)

    def sessions(self, key: str) -> int:
        return sum(self._sessions.get(key, {}).values())

    def sums(self, place: int, length_us: int, now_us: int) -> dict[str, float]:
        """What was counted within the last `length_us`, which is the length of the window, by key."""
        number, part = now_us // length_us, 1 - now_us % length_us / length_us
        weights = {self._numbers[place]: self._now[place], self._numbers[place] - 1: self._before[place]}
        found: dict[str, float] = {}
        for table, weight in ((weights.get(number, {}), 1.0), (weights.get(number - 1, {}), part)):
            for key, counts in table.items():
                found[key] = found.get(key, 0.0) + weight * sum(counts.values())
        return found

    def kept(self, place: int) -> tuple[int, Counts, Counts]:
        """A window with its number and the one before, to be kept over a restart."""
        now, before = (
            {key: sum(counts.values()) for key, counts in table[place].items()} for table in (self._now, self._before)
        )
        return self._numbers[place], now, before

    def restore(self, place: int, number: int, now: Counts, before: Counts) -> None:
        """What `kept` has given to who was here before."""
        self._numbers[place] = number
        self._now[place] = {key: {_GONE: count} for key, count in now.items()}
        self._before[place] = {key: {_GONE: count} for key, count in before.items()}

    def _add(self, place: int, number: int, worker: int, changed: Mapping[str, int]) -> None:
        if number > self._numbers[place] or self._numbers[place] - number > 1:  # later, or the clock was set back
            follows = number == self._numbers[place] + 1
            self._before[place] = self._now[place] if follows else {}
            self._now[place], self._numbers[place] = {}, number
        if number == self._numbers[place]:
            table = self._now[place]
            for key, count in changed.items():
                if key in table or len(table) < 4 * KEYS_MAX:
                    table.setdefault(key, {})[worker] = count

    def _total(self, key: str, place: int) -> int:
        """At most what was counted within the length of the window, and a part of the one before."""
        return sum(sum(table[place].get(key, {}).values()) for table in (self._now, self._before))

    def _is_near(self, key: str, place: int) -> bool:
        limit = self._limit(key)
        return limit > 0 and 2 * self._total(key, place) >= limit

    def _spread(self, teller: int, sessions: Iterable[str], windows: Sequence[Iterable[str]]) -> None:
        """Tell the workers what they should know of these keys. Who has told it hears it, too, unless it is alone: it
        may be the first to come near the limit, and does not know then what the others had before."""
        keys = []
        for key in sessions:
            counts, limit = self._sessions.get(key, {}), self._limit(key)
            if limit and 2 * sum(counts.values()) >= limit:
                self._known.add(key)
                keys.append(key)
            elif key in self._known:
                self._known.discard(key)
                keys.append(key)
            if not counts:
                self._sessions.pop(key, None)
        near = [[key for key in changed if self._is_near(key, place)] for place, changed in enumerate(windows)]
        if not keys and not any(near):
            return
        for number in self._workers - {teller} if len(self._workers) == 1 else self._workers:
            heard = {key: _others(self._sessions.get(key, {}), number) if key in self._known else 0 for key in keys}
            self._send(number, (heard, self._windows_for(number, near)))

    def _windows_for(self, number: int, keys: Sequence[Iterable[str]]) -> tuple[tuple[int, Counts, Counts], ...]:
        return tuple(
            (
                self._numbers[place],
                {key: _others(now[key], number) for key in wanted if key in now},
                {key: _others(before[key], number) for key in wanted if key in before},
            )
            for place, (now, before, wanted) in enumerate(zip(self._now, self._before, keys, strict=False))
        )


def _others(counts: Mapping[int, int], number: int) -> int:
    return sum(count for worker, count in counts.items() if worker != number)
