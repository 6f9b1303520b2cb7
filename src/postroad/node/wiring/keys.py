"""The keys that sign mail, as one worker has them: read at the start, and again when the supervisor tells of a change.

What always holds: `domains` is always whole; a change of one domain is in it at once or not at all. It is looked at now
and then, too, so that a change is found also if nobody has told of it. How it fails: problems go to the log, once; the
keys from before stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys
from postroad.world.problem import Problem

Aside = Callable[[Callable[[], tuple[Problem, ...]], Callable[[tuple[Problem, ...]], None]], None]


class WorkerKeys:
    """`aside(work, done)`: does the work, which reads files, where the loop need not wait for it. `note(level, text)`:
    what all workers find by themselves. `on_change`: the domains have other keys now."""

    def __init__(
        self,
        now_us: Callable[[], int],
        aside: Aside,
        note: Callable[[str, str], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_change = on_change
        self._now_us = now_us
        self._aside = aside
        self._note = note
        self._store: KeyStore | None = None
        self._looks = self._again = False
        self._waits: list[Callable[[], None]] = []  # for the end of the look that is under way
        self._next_waits: list[Callable[[], None]] = []  # for that of the next one

    @property
    def domains(self) -> Mapping[str, DomainKeys]:
        """All keys by domain. After a change this is another mapping; domains without a change have the same value."""
        return {} if self._store is None else self._store.domains

    def take(self, folder: str) -> None:
        """Reads the folder that the settings name, if it is another one than before."""
        if self._store is None or str(self._store.folder) != folder:
            self._store = KeyStore(Path(folder), self._now_us)
            self._done(self._store, {}, self._store.load())

    def look(self, done: Callable[[], None] | None = None) -> None:
        """Reads what has changed; then `done` is called. If a look is under way, another one follows it."""
        store = self._store
        if store is None:
            return
        waits = [] if done is None else [done]
        if self._looks:
            self._again = True
            self._next_waits += waits
            return
        self._looks = True
        self._waits += waits
        before = store.domains
        self._aside(store.load, lambda problems: self._looked(store, before, problems))

    def _looked(self, store: KeyStore, before: Mapping[str, DomainKeys], problems: tuple[Problem, ...]) -> None:
        self._looks = False
        self._done(store, before, problems)
        waits, self._waits, self._next_waits = self._waits, self._next_waits, []
        for done in waits:
            done()
        if self._again:
            self._again = False
            self.look()

    def _done(self, store: KeyStore, before: Mapping[str, DomainKeys], problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            self._note("error", f"keys that sign mail: {problem}")
        if store is self._store and store.domains is not before:
            self.on_change()
