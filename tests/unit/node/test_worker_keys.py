"""The keys that sign, as a worker has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from postroad.node.wiring.keys import WorkerKeys
from postroad.trust import keyring
from postroad.trust.dkim_key import KeyKind
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys

_KEY = keyring.made("e1", keyring.generate(KeyKind.ED25519, 0), 7)
_FAR_US = 4_000_000_000_000_000


class _Worker:
    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.noted: list[str] = []
        self.changes = 0
        self.keys = WorkerKeys(lambda: _FAR_US, self._aside, lambda level, text: self.noted.append(text), self._changed)

    def _aside(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.waiting.append(lambda: done(work()))

    def _changed(self) -> None:
        self.changes += 1

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


def _write(folder: Path, *keys: DomainKeys) -> None:
    store = KeyStore(folder, lambda: _FAR_US)
    with store.changing():
        for each in keys:
            store.write(each)


def test_the_folder_is_read_at_the_start_and_after_a_change(tmp_path: Path) -> None:
    _write(tmp_path / "dkim", DomainKeys("example.org", (_KEY,)))
    worker = _Worker()
    assert worker.keys.domains == {}
    worker.keys.take(str(tmp_path / "dkim"))
    assert list(worker.keys.domains) == ["example.org"]
    changes = worker.changes
    worker.keys.look()
    worker.run()
    assert worker.changes == changes
    _write(tmp_path / "dkim", DomainKeys("example.net", (_KEY,)))
    worker.keys.look()
    worker.run()
    assert set(worker.keys.domains) == {"example.org", "example.net"}
    assert worker.changes == changes + 1


def test_a_change_that_is_told_during_a_look_is_looked_at_afterwards(tmp_path: Path) -> None:
    worker = _Worker()
    worker.keys.take(str(tmp_path / "dkim"))
    worker.keys.look()
    look = worker.waiting.pop()
    worker.keys.look()
    worker.keys.look()
    assert worker.waiting == []
    look()
    assert len(worker.waiting) == 1
    _write(tmp_path / "dkim", DomainKeys("example.org", (_KEY,)))
    worker.run()
    assert list(worker.keys.domains) == ["example.org"]


def test_another_folder_in_the_settings_is_read_and_a_look_at_the_old_one_counts_for_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "one", DomainKeys("example.org", (_KEY,)))
    _write(tmp_path / "two", DomainKeys("example.net", (_KEY,)))
    worker = _Worker()
    worker.keys.take(str(tmp_path / "one"))
    _write(tmp_path / "one", DomainKeys("example.com", (_KEY,)))
    worker.keys.look()
    worker.keys.take(str(tmp_path / "two"))
    changes = worker.changes
    worker.run()
    assert list(worker.keys.domains) == ["example.net"]
    assert worker.changes == changes


def test_what_is_wrong_is_noted_once(tmp_path: Path) -> None:
    _write(tmp_path / "dkim", DomainKeys("example.org", (_KEY,)))
    (tmp_path / "dkim" / "example.org.json").chmod(0o644)
    worker = _Worker()
    worker.keys.take(str(tmp_path / "dkim"))
    worker.keys.look()
    worker.run()
    assert len(worker.noted) == 1
    assert "other users may read" in worker.noted[0]
    assert worker.keys.domains == {}


def test_who_asks_hears_of_the_end_of_a_look_that_began_later(tmp_path: Path) -> None:
    worker = _Worker()
    worker.keys.take(str(tmp_path / "dkim"))
    heard: list[tuple[str, list[str]]] = []

    def hear(name: str) -> Callable[[], None]:
        return lambda: heard.append((name, list(worker.keys.domains)))

    worker.keys.look(hear("first"))
    first = worker.waiting.pop()
    _write(tmp_path / "dkim", DomainKeys("example.org", (_KEY,)))
    worker.keys.look(hear("second"))  # the look under way may have read the folder before the change
    first()
    assert [name for name, _ in heard] == ["first"]
    worker.run()
    assert heard[-1] == ("second", ["example.org"])
